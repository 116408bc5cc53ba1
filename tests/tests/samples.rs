//! Promise: what is shown works. Every scenario and every plan in the documentation is a plan, every policy a
//! policy, every command a command.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sheaf_agent::config::Config;
use sheaf_coordinator::run::plan::Plan;
use sheaf_tests::process::binary;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    files.sort();
    files
}

/// A fenced block of a document.
struct Block {
    /// File and line, for messages.
    place: String,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut documents = files("docs", "md");
    documents.extend(root().join("README.md").exists().then(|| root().join("README.md")));
    let mut blocks = Vec::new();
    for document in documents {
        let name = document.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&document).unwrap();
        let mut open: Option<Block> = None;
        for (number, line) in text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            open = match (open, fence) {
                (None, Some(language)) => Some(Block {
                    place: format!("{name}:{}", number + 1),
                    language: language.trim().to_owned(),
                    text: String::new(),
                }),
                (Some(block), Some(_)) => {
                    blocks.push(block);
                    None
                }
                (Some(mut block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                    Some(block)
                }
                (None, None) => None,
            };
        }
        assert!(open.is_none(), "{name}: a block is not closed");
    }
    blocks
}

#[test]
fn every_scenario_is_a_plan() {
    let scenarios = files("scenarios", "toml");
    assert!(!scenarios.is_empty());
    for path in scenarios {
        let text = fs::read_to_string(&path).unwrap();
        let plan = Plan::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(plan.data.is_some(), "{}: a scenario can be simulated", path.display());
    }
}

#[test]
fn every_plan_and_policy_in_the_documents_can_be_read() {
    for block in blocks().iter().filter(|block| block.language == "toml") {
        let has = |section: &str| block.text.lines().any(|line| line.trim() == section);
        if has("[run]") {
            Plan::parse(&block.text).unwrap_or_else(|e| panic!("{}: {e}", block.place));
        }
        if has("[policy]") {
            Config::parse(&block.text, Path::new(".")).unwrap_or_else(|e| panic!("{}: {e}", block.place));
        }
    }
}

/// Subcommands named in a `--help` text.
fn subcommands(binary: &Path, path: &[&str]) -> Vec<String> {
    let output = Command::new(binary).args(path).arg("--help").output().unwrap();
    assert!(output.status.success(), "{path:?}: {output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Names stand two spaces in, the text that goes on from a line before much farther.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// Commands by binary: each with its own subcommands, if any.
fn commands(name: &str) -> BTreeMap<String, Vec<String>> {
    let binary = binary(name);
    let commands: BTreeMap<_, _> = subcommands(&binary, &[])
        .into_iter()
        .filter(|command| command != "help")
        .map(|command| {
            let inner = subcommands(&binary, &[&command]);
            (command, inner)
        })
        .collect();
    assert!(commands.len() > 3, "{name} --help names its commands: {commands:?}");
    commands
}

#[test]
fn every_command_in_the_documents_exists() {
    for name in ["sheaf", "sheaf-agent"] {
        let commands = commands(name);
        for block in blocks() {
            if !["sh", "console", "bash"].contains(&block.language.as_str()) {
                continue;
            }
            for line in block.text.lines() {
                let line = line.trim_start().trim_start_matches("$ ");
                let Some(rest) = line.strip_prefix(&format!("{name} ")) else {
                    continue;
                };
                check(&commands, rest).unwrap_or_else(|e| panic!("{}: `{line}`: {e}", block.place));
            }
        }
    }
}

fn check(commands: &BTreeMap<String, Vec<String>>, words: &str) -> Result<(), String> {
    let mut words = words.split_whitespace().peekable();
    while let Some(word) = words.peek() {
        match *word {
            "--version" | "--help" | "-V" | "-h" => return Ok(()),
            "--home" | "--data-dir" | "--config" | "-c" => drop(words.nth(1)),
            flag if flag.starts_with("--") => drop(words.next()),
            _ => break,
        }
    }
    let command = words.next().unwrap_or_default();
    let command = if command == "enrol" { "enroll" } else { command };
    let Some(inner) = commands.get(command) else {
        return Err(format!("there is no command `{command}`"));
    };
    match words.next() {
        _ if inner.is_empty() => Ok(()),
        Some(word) if inner.iter().any(|known| known == word) || word == "--help" => Ok(()),
        other => Err(format!("`{command}` has no command `{}`", other.unwrap_or_default())),
    }
}

#[test]
fn an_unknown_command_is_seen() {
    let commands = commands("sheaf");
    assert!(check(&commands, "run submit study.toml --watch").is_ok());
    assert!(check(&commands, "--home x site list").is_ok());
    for wrong in ["fly", "run fly", "run", "--home x fly"] {
        assert!(check(&commands, wrong).is_err(), "{wrong}");
    }
}
