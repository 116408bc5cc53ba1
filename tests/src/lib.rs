//! End-to-end, fault and promise tests of Sheaf. The harness is in this library, the tests beside it.
