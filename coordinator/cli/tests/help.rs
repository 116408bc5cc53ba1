//! What a person at the command line meets first: help with examples, the version, completions, and exit code 2
//! for wrong usage.

use std::process::{Command, Output};

fn sheaf(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sheaf")).args(args).output().expect("the binary starts")
}

fn help(path: &[String]) -> String {
    let mut args: Vec<_> = path.iter().map(String::as_str).collect();
    args.push("--help");
    let output = sheaf(&args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("help is text")
}

/// Every command below `path`, by the list in its help.
fn walk(path: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let text = help(path);
    let commands: Vec<_> = text
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    found.push((path.to_vec(), text));
    for command in commands {
        let mut path = path.to_vec();
        path.push(command);
        walk(&path, found);
    }
}

#[test]
fn every_command_has_help_and_those_with_arguments_an_example() {
    let mut found = Vec::new();
    walk(&[], &mut found);
    let paths: Vec<_> = found.iter().map(|(path, _)| path.join(" ")).collect();
    for known in [
        "init",
        "serve",
        "site invite",
        "site revoke",
        "run submit",
        "run withdraw",
        "run report",
        "simulate",
        "predict",
        "data pull",
        "plan check",
        "privacy clip",
        "info",
        "completions",
    ] {
        assert!(paths.iter().any(|path| path == known), "`{known}` is not in the help: {paths:?}");
    }
    assert!(found[0].1.contains("Exit codes:") && found[0].1.contains("sheaf simulate scenarios/"));
    for known in [
        "init",
        "serve",
        "site invite",
        "run submit",
        "run withdraw",
        "simulate",
        "predict",
        "plan check",
        "privacy clip",
        "completions",
    ] {
        let (_, text) = &found[paths.iter().position(|path| path == known).expect("seen above")];
        assert!(text.contains(&format!("  sheaf {known}")), "`{known}` has no example:\n{text}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let output = sheaf(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, format!("sheaf {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
}

#[test]
fn completions_come_out() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = sheaf(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let text = String::from_utf8(output.stdout).expect("completions are text");
        assert!(text.contains("withdraw") && text.contains("simulate"), "{shell}: {text}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_how_it_is_right() {
    for args in [
        &["fly"][..],
        &[],
        &["run"],
        &["run", "submit"],
        &["simulate"],
        &["serve", "--colour"],
        &["completions", "abacus"],
    ] {
        let output = sheaf(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("Usage:") || text.contains("--help"), "{args:?}: {text}");
    }
}

#[test]
fn what_is_not_there_is_named_with_an_exit_code_of_its_own() {
    let output = sheaf(&["plan", "check", "no-such-plan.toml"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-plan.toml"));
    let output = sheaf(&["--home", "no-such-home", "serve"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("sheaf init"));
}

#[test]
fn a_plan_that_tunes_nothing_has_no_clip_to_choose() {
    let plan = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios/heart-disease.toml");
    let output = sheaf(&["privacy", "clip", plan]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(["rewardds", "dp-lora", "head ="].iter().all(|known| text.contains(known)), "{text}");
}

#[test]
fn a_list_of_ones_own_models_that_cannot_be_read_is_named_with_its_file() {
    let plan = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios/banking77-text.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_sheaf"))
        .args(["plan", "check", plan])
        .env("SHEAF_CATALOGUE", "no-such-list.toml")
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read no-such-list.toml"));
}
