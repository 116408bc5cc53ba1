//! What is asked once, and what is asked again.

use std::collections::HashSet;

use futures::future::join_all;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::llm::{Form, Format, Sampling, stub::Scripted};

/// All completions under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn the_same_prompt_is_asked_once_and_by_every_later_process() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(Scripted::new(1, |prompt, at| Ok(format!("{} {at}", prompt.user))));
    let cached = Cached::open(model.clone(), folder.path()).unwrap();
    let prompt = Prompt::new("why?");
    let first = cached.complete(&prompt).await.unwrap();
    assert_eq!(cached.complete(&prompt).await.unwrap(), first);
    let again = Cached::open(model.clone(), folder.path()).unwrap();
    assert_eq!(again.complete(&prompt).await.unwrap(), first);
    assert_eq!((model.asked(), cached.totals().cache_hits, again.totals().cache_hits), (1, 1, 1));

    let second = cached.complete(&Prompt { sample: 1, ..prompt }).await.unwrap();
    assert_ne!(second, first, "another sample is another question");
    let files = files(folder.path());
    assert_eq!(files.len(), 2);
    for file in files {
        let parts: Vec<_> =
            file.strip_prefix(folder.path()).unwrap().iter().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(parts.len(), 3, "two levels of folders: {parts:?}");
        assert!(parts[2].starts_with(&parts[..2].concat()) && parts[2].len() == 64 + 5, "{parts:?}");
        let kept: Completion = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert!(kept == first || kept == second);
    }
}

#[tokio::test]
async fn a_damaged_file_is_asked_again_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(Scripted::echo(1));
    let cached = Cached::open(model.clone(), folder.path()).unwrap();
    let prompt = Prompt::new("why?");
    let good = cached.complete(&prompt).await.unwrap();
    let file = files(folder.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    for (at, damaged) in [&whole[..whole.len() / 2], b"", b"null", b"\xff\xfe"].into_iter().enumerate() {
        fs::write(&file, damaged).unwrap();
        assert_eq!(cached.complete(&prompt).await.unwrap(), good);
        assert_eq!((model.asked(), fs::read(&file).unwrap()), (at + 2, whole.clone()));
    }
}

#[tokio::test]
async fn askers_at_the_same_time_share_one_request() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(Scripted::echo(8));
    model.takes(|_| Duration::from_millis(20));
    let cached = Cached::open(model.clone(), folder.path()).unwrap();
    let prompt = Prompt::new("why?");
    let answers = join_all((0..8).map(|_| cached.complete(&prompt))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().text == "why?"));
    assert_eq!((model.asked(), cached.totals().cache_hits), (1, 7));
    assert!(cached.shared.flights.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_asker_that_gives_up_does_not_take_the_others_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(Scripted::echo(8));
    model.takes(|_| Duration::from_millis(50));
    let cached = Arc::new(Cached::open(model.clone(), folder.path()).unwrap());
    let ask = || {
        let cached = cached.clone();
        tokio::spawn(async move { cached.complete(&Prompt::new("why?")).await })
    };
    let (first, second) = (ask(), ask());
    tokio::time::sleep(Duration::from_millis(10)).await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap().text, "why?");
    assert_eq!(model.asked(), 1);

    // Given up by everybody, it is given up; the next asker asks anew.
    let prompt = Prompt::new("and then?");
    model.takes(|_| Duration::from_secs(600));
    let given_up = tokio::time::timeout(Duration::from_millis(10), cached.complete(&prompt)).await;
    assert!(given_up.is_err());
    model.takes(|_| Duration::ZERO);
    assert_eq!(cached.complete(&prompt).await.unwrap().text, "and then?");
    assert_eq!(model.asked(), 3);
}

#[tokio::test]
async fn failures_are_not_kept_but_shared() {
    let folder = tempfile::tempdir().unwrap();
    let model = Arc::new(Scripted::new(8, |_, at| match at {
        0 => Err(LlmError::transient("away")),
        _ => Ok("here".to_owned()),
    }));
    model.takes(|_| Duration::from_millis(10));
    let cached = Cached::open(model.clone(), folder.path()).unwrap();
    let prompt = Prompt::new("why?");
    let answers = join_all((0..4).map(|_| cached.complete(&prompt))).await;
    assert!(answers.iter().all(|answer| *answer == Err(LlmError::transient("away"))));
    assert_eq!((model.asked(), cached.totals().cache_hits), (1, 0));
    assert_eq!(cached.complete(&prompt).await.unwrap().text, "here");
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_still_answers() {
    let folder = tempfile::tempdir().unwrap();
    let cached = Cached::open(Scripted::echo(1), folder.path()).unwrap();
    fs::remove_dir_all(folder.path().join("incoming")).unwrap();
    assert_eq!(cached.complete(&Prompt::new("why?")).await.unwrap().text, "why?");
}

#[test]
fn files_that_a_killed_process_left_go_after_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let incoming = folder.path().join("incoming");
    fs::create_dir_all(&incoming).unwrap();
    let (old, new) = (incoming.join("1-0-0"), incoming.join("2-0-0"));
    for path in [&old, &new] {
        fs::write(path, "{\"te").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - ABANDONED - Duration::from_secs(60);
    fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    Cached::open(Scripted::echo(1), folder.path()).unwrap();
    assert!(!old.exists() && new.exists());
}

#[cfg(unix)]
#[test]
fn the_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("llm-cache");
    Cached::open(Scripted::echo(1), &cache).unwrap();
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_prompt_without_a_key_is_refused() {
    let mut prompt = Prompt::new("x");
    prompt.options.temperature = f64::NAN;
    assert!(matches!(key("m", &prompt), Err(LlmError::Refused { .. })));
}

fn text() -> impl Strategy<Value = String> {
    // Few characters, those that could break a frame among them.
    "[ab\"\\\\,\\[\\]\u{0}]{0,4}"
}

fn format() -> impl Strategy<Value = Format> {
    let schema = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        text().prop_map(|t| json!({ t: 1 }))
    ];
    prop_oneof![Just(Format::Text), schema.prop_map(Format::Json)]
}

prop_compose! {
    fn prompts()(
        system in prop::option::of(text()),
        user in text(),
        temperature in 0.0..2.0_f64,
        top_p in 0.01..1.0_f64,
        max_tokens in 1..4_u32,
        seed in prop::option::of(0..3_u64),
        stop in prop::option::of("[ab]{1,2}"),
        format in format(),
        form in prop_oneof![Just(Form::Ask), Just(Form::Continue)],
        sample in 0..3_u32,
    ) -> Prompt {
        let options = Sampling { temperature, top_p, max_tokens, seed, stop, format };
        Prompt { system, user, form, options, sample }
    }
}

proptest! {
    #[test]
    fn keys_differ_wherever_a_field_differs((one, other) in (prompts(), prompts()), (a, b) in (text(), text())) {
        let mut keys = HashSet::from([key(&a, &one).unwrap()]);
        let mut expected = 1;
        let mut differs = |model: &str, prompt: Prompt| {
            if model != a || prompt != one {
                expected += 1;
                keys.insert(key(model, &prompt).unwrap());
            }
        };
        differs(&b, one.clone());
        differs(&a, Prompt { system: other.system.clone(), ..one.clone() });
        differs(&a, Prompt { user: other.user.clone(), ..one.clone() });
        differs(&a, Prompt { sample: other.sample, ..one.clone() });
        let options = |change: &dyn Fn(&mut Sampling)| {
            let mut prompt = one.clone();
            change(&mut prompt.options);
            prompt
        };
        differs(&a, options(&|o| o.temperature = other.options.temperature));
        differs(&a, options(&|o| o.top_p = other.options.top_p));
        differs(&a, options(&|o| o.max_tokens = other.options.max_tokens));
        differs(&a, options(&|o| o.seed = other.options.seed));
        differs(&a, options(&|o| o.format = other.options.format.clone()));
        // Each change is of another field, so that no two of them give the same question.
        prop_assert_eq!(keys.len(), expected);
        prop_assert_eq!(key(&a, &one).unwrap(), key(&a, &one.clone()).unwrap());
    }
}
