//! The journal: its text is kept for ever, and what it folds to depends on nothing else.

use super::*;
use crate::error::Class;

fn entry(seq: i64, event: Event) -> Entry {
    Entry { seq, at: 5, event }
}

#[test]
fn a_journal_that_cannot_be_one_is_refused() {
    let first = || entry(0, submitted(&["a"], Some(1)));
    for (what, journal) in [
        ("nothing", vec![]),
        ("no submission", vec![entry(0, Event::Aborted)]),
        ("a gap", vec![first(), entry(2, Event::Aborted)]),
        ("one twice", vec![first(), entry(1, Event::Aborted), entry(1, Event::Resumed)]),
    ] {
        let error = Run::replay(&journal).unwrap_err();
        assert_eq!(error.class, Class::Corrupt, "{what}");
    }
    assert!(Run::replay(&[first(), entry(1, Event::Aborted)]).is_ok());
}

/// A text that was once written is read for ever, and today's events are still written like that.
#[test]
fn the_text_of_each_event_is_the_one_of_the_first_version() {
    let id = BlobId::new([0xab; 32], 7);
    let hex = format!("{}:7", "ab".repeat(32));
    let spec = PhaseSpec { spec: id, inputs: vec![id], ..phase("sums", "sums-1") };
    let spec_text = format!(
        r#"{{"name":"sums","key":"sums-1","spec":"{hex}","inputs":["{hex}"],"releases":["sums"],"defines_model":true,"max_result_bytes":1000}}"#
    );
    let delivery = Delivery { blob: id, bytes_up: 1, bytes_down: 2, seconds: 0.5, spend: None };
    let table = [
        (
            submitted(&["a"], Some(1)),
            format!(
                r#"{{"event":"submitted","name":"a run","workload":"afl","plan_sha256":"{}","sites":["a"],"quorum":1}}"#,
                "00".repeat(32)
            ),
        ),
        (
            Event::Decided { next: Next::Collect(spec) },
            format!(r#"{{"event":"decided","next":{{"collect":{spec_text}}}}}"#),
        ),
        (publish(), r#"{"event":"decided","next":"publish"}"#.to_owned()),
        (
            Event::Delivered { site: site("a"), key: "k".into(), delivery },
            format!(
                r#"{{"event":"delivered","site":"a","key":"k","delivery":{{"blob":"{hex}","bytes_up":1,"bytes_down":2,"seconds":0.5}}}}"#
            ),
        ),
        (declined("a"), r#"{"event":"declined","site":"a","reason":"a will not"}"#.to_owned()),
        (deadline("k"), r#"{"event":"deadline_passed","key":"k"}"#.to_owned()),
        (
            Event::Reduced { key: "k".into(), output: id },
            format!(r#"{{"event":"reduced","key":"k","output":"{hex}"}}"#),
        ),
        (Event::Published { publication: id }, format!(r#"{{"event":"published","publication":"{hex}"}}"#)),
        (Event::Failed { reason: "r".into() }, r#"{"event":"failed","reason":"r"}"#.to_owned()),
        (Event::Aborted, r#"{"event":"aborted"}"#.to_owned()),
        (Event::Resumed, r#"{"event":"resumed"}"#.to_owned()),
        (Event::Withdrawn { site: site("a") }, r#"{"event":"withdrawn","site":"a"}"#.to_owned()),
        (Event::Added { site: site("a") }, r#"{"event":"added","site":"a"}"#.to_owned()),
    ];
    for (event, text) in table {
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
