mod controls;
mod one_run;
mod tails;
