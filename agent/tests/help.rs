//! What a person at a site's command line meets first: help with examples, the version, completions, and exit
//! code 2 for wrong usage.

use std::process::{Command, Output};

fn agent(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sheaf-agent")).args(args).output().expect("the binary starts")
}

fn help(path: &[&str]) -> String {
    let output = agent(&[path, &["--help"]].concat());
    assert_eq!(output.status.code(), Some(0), "{path:?}: {output:?}");
    String::from_utf8(output.stdout).expect("help is text")
}

#[test]
fn every_command_has_help_and_those_with_arguments_an_example() {
    let top = help(&[]);
    assert!(top.contains("First steps:") && top.contains("Exit codes:"), "{top}");
    for path in [
        &["enroll"][..],
        &["start"],
        &["status"],
        &["policy", "check"],
        &["data", "check"],
        &["devices"],
        &["model", "list"],
        &["model", "pull"],
        &["model", "verify"],
        &["approve"],
        &["completions"],
    ] {
        let text = help(path);
        assert!(
            text.contains(&format!("  sheaf-agent {}", path.join(" "))),
            "{path:?} has no example:\n{text}"
        );
    }
    help(&["check-config"]);
    // Every command that the help names has help, and none is missing above.
    let named: Vec<_> = top
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    for name in &named {
        help(&[name]);
    }
    for name in [
        "enroll",
        "start",
        "status",
        "policy",
        "data",
        "devices",
        "model",
        "approve",
        "check-config",
        "completions",
    ] {
        assert!(named.contains(&name), "`{name}` is not in the help: {named:?}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let output = agent(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, format!("sheaf-agent {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
}

#[test]
fn completions_come_out() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = agent(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let text = String::from_utf8(output.stdout).expect("completions are text");
        assert!(text.contains("approve") && text.contains("enroll"), "{shell}: {text}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_how_it_is_right() {
    for args in [
        &["fly"][..],
        &[],
        &["enroll"],
        &["policy"],
        &["model"],
        &["model", "pull"],
        &["start", "--colour"],
        &["start", "--device", "gpu"],
        &["completions", "abacus"],
    ] {
        let output = agent(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("Usage:") || text.contains("--help"), "{args:?}: {text}");
    }
}

#[test]
fn devices_are_listed_without_a_configuration() {
    let output = agent(&["devices", "--no-speed", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let devices = listed["devices"].as_array().expect("a list");
    assert_eq!(devices[0]["device"], "cpu");
    assert!(devices.iter().skip(1).all(|device| device["reason"].is_string() || device["what"].is_string()));
    assert!(listed["auto"].is_string());
    let programs = &listed["programs"];
    let isolated = programs["isolated"].as_bool().expect("yes or no");
    assert_eq!(programs["reason"].is_null(), isolated, "{programs}");

    let output = agent(&["devices", "--no-speed"]);
    let text = String::from_utf8(output.stdout).expect("text");
    for part in ["cpu ", "threads", "cuda", "vulkan", "wgpu", "device = \"auto\" takes", "programs: "] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn models_are_listed_and_unknown_ones_named() {
    let output = agent(&["model", "list", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let ids: Vec<_> = listed.as_array().expect("a list").iter().map(|model| &model["id"]).collect();
    assert!(ids.iter().any(|id| *id == "smollm2-135m"), "{ids:?}");
    assert!(ids.iter().all(|id| *id != "mnist"), "a data set is no model: {ids:?}");
    for command in ["pull", "verify"] {
        // A data set is no model.
        for id in ["nothing", "mnist"] {
            let output = agent(&["model", command, id]);
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(
                text.contains(&format!("asset {id}: is no model")) && text.contains("smollm2-135m"),
                "{text}"
            );
        }
    }
}

#[test]
fn all_models_that_are_here_are_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("own.toml");
    // The hash of an empty file.
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let list = format!(
        "[[asset]]\nid = 'mine'\ntitle = 't'\nlicence = 'l'\ncitation = 'c'\nkind = 'model'\n\
         files = [{{ name = 'mine.gguf', role = 'weights', sha256 = '{sha256}' }}]\n"
    );
    std::fs::write(&own, list).expect("the list is written");
    std::fs::create_dir(folder.path().join("mine")).expect("a folder");
    let weights = folder.path().join("mine/mine.gguf");
    let verify = || {
        Command::new(env!("CARGO_BIN_EXE_sheaf-agent"))
            .args(["model", "verify", "--json"])
            .env_remove("SHEAF_DATA_DIR")
            .env("SHEAF_CACHE", folder.path())
            .env("SHEAF_CATALOGUE", &own)
            .output()
            .expect("the binary starts")
    };
    for (content, code, ids) in [(None, 0, vec![]), (Some(""), 0, vec!["mine"]), (Some("other"), 3, vec![])] {
        if let Some(content) = content {
            std::fs::write(&weights, content).expect("the weights are written");
        }
        let output = verify();
        assert_eq!(output.status.code(), Some(code), "{content:?}: {output:?}");
        let verified: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let found: Vec<_> = verified.as_array().into_iter().flatten().map(|model| &model["id"]).collect();
        assert_eq!(found, ids, "{content:?}");
    }
}

#[test]
fn what_is_not_there_is_named_with_an_exit_code_of_its_own() {
    let output = agent(&["start", "--config", "no-such-agent.toml"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-agent.toml"));
}
