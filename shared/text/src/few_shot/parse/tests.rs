use super::*;
use crate::few_shot::layout;
use proptest::prelude::*;

fn labels() -> Labels {
    Labels::new(["positive", "negative"]).unwrap()
}

fn parsed(answer: &str) -> Vec<(String, String)> {
    let generated = parse_generated(answer, &labels());
    assert!(generated.step.dropped.is_empty(), "{answer}: {:?}", generated.step);
    generated.samples.into_iter().map(|sample| (sample.label, sample.text)).collect()
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted.iter().map(|&(label, text)| (label.to_owned(), text.to_owned())).collect()
}

const TWO: [(&str, &str); 2] = [("positive", "It works well."), ("negative", "It broke.")];

#[test]
fn an_echoed_delimiter_does_not_lose_the_answer() {
    for start in
        ["", "### Sample 1\n", "### Sample 1\n### Sample 1\n", "\n\n### Sample\n\n", "---\n", "###\n"]
    {
        let answer = format!(
            "{start}Label: positive\nText: It works well.\n### Sample 2\nLabel: negative\nText: It broke."
        );
        assert_eq!(parsed(&answer), pairs(&TWO), "{start:?}");
    }
}

#[test]
fn numbering_and_markdown_are_taken_off() {
    for answer in [
        "1. Label: positive\n   Text: It works well.\n2. Label: negative\n   Text: It broke.",
        "1)\nlabel: Positive.\ntext: It works well.\n\n2)\nLABEL: \"negative\"\nTEXT: It broke.",
        "**Label:** positive\n**Text:** It works well.\n\n**Label**: negative\n**Text**: It broke.",
        "- Label: positive\n- Text: It works well.\n---\n- Label: negative\n- Text: It broke.",
        "Sample 1: Label: positive | Text: It works well.\nSample 2: Label: negative, Text: It broke.",
        "### Sample 1: Label: positive Text: It works well.\n### Sample 2: Label: negative Text: It broke.",
        "Sure, here are two:\n\n### Sample 1\nLabel: positive\nText:\nIt works\nwell.\n\n### Sample 2\nLabel: negative\n\nIt broke.\n\nI hope this helps!",
        "```\n### Sample 1\nLabel: positive\nText: It works well.\n### Sample 2\nLabel: negative\nText: It broke.\n```",
        "**Sample 1**\nLabel: positive\nText: It works well.\n**Sample 2:**\nLabel: negative\nText: It broke.",
        "[1] Label: positive\nText: It works well.\n[2] Label: negative\nText: It broke.",
    ] {
        assert_eq!(parsed(answer), pairs(&TWO), "{answer}");
    }
}

#[test]
fn what_cannot_be_used_is_counted() {
    let answer = "### Sample 1\nLabel: neutral\nText: So so.\n### Sample 2\nText: Whose?\n### Sample 3\nLabel: positive\n\
                  ### Sample 4\nLabel: positive or negative\nText: Both.\n### Sample 5\nLabel: NEGATIVE!\nText: It broke.";
    let generated = parse_generated(answer, &labels());
    assert_eq!(generated.samples, [Labelled::new("It broke.", "negative")]);
    assert_eq!((generated.step.given, generated.step.kept()), (5, 1));
    let dropped: Vec<_> =
        generated.step.dropped.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(dropped, [("no label", 1), ("no text", 1), ("unknown label", 2)]);
}

#[test]
fn an_answer_without_samples_says_so() {
    for answer in ["", "I cannot help with that.", "### Sample 1", "1. positive", "\n\n"] {
        assert_eq!(parse_generated(answer, &labels()).step.given, 0, "{answer}");
    }
}

#[test]
fn texts_that_look_like_layout_stay_whole() {
    for text in [
        "Text: is a key",
        "Label: positive",
        "### Sample 2",
        "3.",
        "- and **bold**",
        "Sample sizes are small.",
    ] {
        let answer = layout(&[Labelled::new(text, "positive"), Labelled::new("next", "negative")]);
        assert_eq!(parsed(&answer), pairs(&[("positive", text), ("negative", "next")]));
    }
    let answer = "Label: positive\nText: There were\nSample sizes to try\nand 3 bags.";
    assert_eq!(parsed(answer), pairs(&[("positive", "There were Sample sizes to try and 3 bags.")]));
}

proptest! {
    #[test]
    fn what_is_laid_out_is_read(
        names in prop::collection::btree_set("(\\PC|text: |[.:|* -]){1,12}", 1..4),
        texts in prop::collection::vec((0..4_usize, "(\\PC|\n|\r|Label: |Text: |### Sample 1|[*:#-]){1,30}"), 0..6),
    ) {
        let names: Vec<_> = names.iter().map(|name| single_line(name)).collect();
        let Ok(labels) = Labels::new(names.clone()) else { return Err(TestCaseError::reject("not labels")) };
        let samples: Vec<_> = texts
            .into_iter()
            .map(|(label, text)| Labelled::new(single_line(&text), names[label % names.len()].clone()))
            .filter(|sample| !sample.text.is_empty())
            .collect();
        let generated = parse_generated(&layout(&samples), &labels);
        prop_assert_eq!(&generated.samples, &samples);
        prop_assert_eq!(generated.step, Step::new("parse", samples.len()));
    }

    #[test]
    fn any_answer_is_read_without_panic_and_adds_up(answer in "(\\PC|\n|Label: |Text: |positive|### Sample |[*:#0-9-]){0,60}") {
        let generated = parse_generated(&answer, &labels());
        prop_assert_eq!(generated.step.kept(), generated.samples.len());
        prop_assert!(generated.samples.iter().all(|sample| !sample.text.is_empty() && labels().index(&sample.label).is_some()));
    }
}
