//! Promise: crates depend only downwards, and the repository's root holds what it is said to hold.

use std::{collections::BTreeSet, path::Path, process::Command};

/// What each crate of the workspace may depend on within it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("sheaf-analytic", &[]),
    ("sheaf-data", &[]),
    ("sheaf-models", &[]),
    ("sheaf-privacy", &[]),
    ("sheaf-proto", &["sheaf-analytic", "sheaf-data", "sheaf-privacy", "sheaf-secagg", "sheaf-text"]),
    ("sheaf-sandbox", &[]),
    // The sums of its bench and of one test; the protocol itself needs nothing.
    ("sheaf-secagg", &["sheaf-analytic"]),
    ("sheaf-text", &[]),
    ("sheaf-transport", &["sheaf-proto"]),
    (
        "sheaf-coordinator",
        &[
            "sheaf-analytic",
            "sheaf-data",
            "sheaf-privacy",
            "sheaf-proto",
            "sheaf-secagg",
            "sheaf-text",
            "sheaf-transport",
        ],
    ),
    (
        "sheaf-agent",
        &[
            "sheaf-analytic",
            "sheaf-data",
            "sheaf-models",
            "sheaf-privacy",
            "sheaf-proto",
            "sheaf-sandbox",
            "sheaf-secagg",
            "sheaf-text",
            "sheaf-transport",
        ],
    ),
    ("sheaf", ALL),
    ("sheaf-tests", ALL),
];

const ALL: &[&str] = &[
    "sheaf-agent",
    "sheaf-analytic",
    "sheaf-coordinator",
    "sheaf-data",
    "sheaf-models",
    "sheaf-privacy",
    "sheaf-proto",
    "sheaf-sandbox",
    "sheaf-secagg",
    "sheaf-text",
    "sheaf-transport",
];

const ROOT: &[&str] = &[
    ".ci",
    ".dockerignore",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "agent",
    "clippy.toml",
    "coordinator",
    "deny.toml",
    "docker-compose.yml",
    "docs",
    "justfile",
    "proto",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "scenarios",
    "shared",
    "tests",
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn crates_depend_downwards() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    let members: BTreeSet<_> = packages.iter().map(name).collect();
    let known: BTreeSet<_> = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(members, known, "a crate that the table does not name, or names in vain");
    for package in packages {
        let (_, may_use) = MAY_USE.iter().find(|(known, _)| *known == name(package)).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = name(dependency);
            assert!(
                !members.contains(&used) || may_use.contains(&used.as_str()),
                "{} depends on {used}, which lies above or beside it",
                name(package)
            );
        }
    }
}

#[test]
fn the_root_holds_what_it_should() {
    let entries: BTreeSet<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        // The repository itself, and what .gitignore names.
        .filter(|name| {
            name != ".git"
                && name != "runs"
                && name != ".venv"
                && !name.starts_with("target")
                && !name.ends_with(".profraw")
        })
        .collect();
    let wanted: BTreeSet<String> = ROOT.iter().map(|name| (*name).to_owned()).collect();
    let extra: Vec<_> = entries.difference(&wanted).collect();
    let missing: Vec<_> = wanted.difference(&entries).collect();
    assert!(
        extra.is_empty() && missing.is_empty(),
        "the root has {extra:?} beside what it should, and lacks {missing:?}"
    );
}
