//! What the coordinator's language model writes (spec step 8): prompts with demonstrations, answers read, checked against
//! their labels and against what they were shown.

use serde::Serialize;
use sheaf_text::{
    Labelled, Labels, Step, UnitVectors, balance,
    clean::{CleanSpec, clean, tidy},
    cosine,
    few_shot::{CopySpec, Demonstrations, drop_copies, parse_generated, prompt, unfinished_list},
};

use super::{
    meaning::{Meaning, embed, places},
    options::{AugmentOptions, FdktOptions, PromptKind},
};
use crate::{
    error::Error,
    llm::{Completion, Llm, Prompt, Sampling, cache},
    models::Tools,
    workload::ask::ask,
};

/// How often a prompt is asked whose answer holds no sample.
const ATTEMPTS: u32 = 2;

/// Texts of the sites that prompts may show, with what they say.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) texts: &'a [Labelled],
    pub(super) vectors: &'a UnitVectors,
}

/// What was written.
pub(super) struct Written {
    pub(super) texts: Vec<Labelled>,
    /// `[texts, dim]`.
    pub(super) vectors: UnitVectors,
    pub(super) provenance: Vec<Provenance>,
    pub(super) steps: Vec<Step>,
}

/// Where a text is from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Provenance {
    /// SHA-256 of model, prompt, options and sample: the name of the answer in the coordinator's cache.
    prompt: String,
    /// Texts that the prompt showed: their places among the sites' texts that went on.
    demonstrations: Vec<usize>,
    /// By how much the label that fits best fits better than the text's own, nats.
    doubt: f64,
}

/// A prompt, what it shows, and the label that it is about where it is about one.
struct Question {
    prompt: Prompt,
    demonstrations: Vec<usize>,
    label: Option<usize>,
}

/// Writes texts of every label. `what` is for people.
pub(super) fn augment(
    tools: &Tools<'_>,
    llm: &dyn Llm,
    (options, labels, encoder): (&FdktOptions, &Labels, &sheaf_data::Backbone),
    shown: Shown<'_>,
    meaning: &Meaning,
    what: &str,
) -> Result<Written, Error> {
    let by_label = match options.augment.prompt {
        PromptKind::Auto => !llm.follows_instructions(),
        kind => kind == PromptKind::ByLabel,
    };
    let questions =
        if by_label { lists(options, labels, shown.texts)? } else { layouts(options, labels, shown.texts)? };
    let (samples, origins, parsed) = answers(tools, llm, labels, &questions, what)?;
    let mut steps = vec![parsed];

    let spec = CleanSpec { min_words: options.augment.min_words, ..CleanSpec::default() };
    let cleaned = clean(&samples, &spec)?;
    let mut origins: Vec<usize> = cleaned.places.iter().map(|place| origins[*place]).collect();
    steps.push(cleaned.step);

    let fresh = drop_copies(&cleaned.kept, &shown.texts.iter().collect::<Vec<_>>(), &CopySpec::default());
    let fresh = fresh?;
    origins = fresh.places.iter().map(|place| origins[*place]).collect();
    steps.push(fresh.step);

    let texts: Vec<&str> = fresh.kept.iter().map(|text| text.text.as_str()).collect();
    let vectors = embed(tools, encoder, &texts)?;
    let chosen = choose(options, labels, &fresh.kept, &vectors, (shown.vectors, meaning))?;
    steps.extend(chosen.steps);

    let model = llm.name();
    let mut written = Written {
        texts: Vec::new(),
        vectors: subset(&vectors, &chosen.places)?,
        provenance: Vec::new(),
        steps,
    };
    for (place, doubt) in chosen.places.into_iter().zip(chosen.doubts) {
        let question = &questions[origins[place]];
        written.texts.push(fresh.kept[place].clone());
        written.provenance.push(Provenance {
            prompt: cache::key(&model, &question.prompt).map_err(|e| Error::invalid(e.to_string()))?,
            demonstrations: question.demonstrations.clone(),
            doubt,
        });
    }
    Ok(written)
}

fn sampling(options: &AugmentOptions, texts: usize, stop: Option<&str>) -> Sampling {
    Sampling {
        temperature: options.temperature,
        top_p: options.top_p,
        max_tokens: options.max_tokens.saturating_mul(texts as u32),
        seed: Some(options.seed),
        stop: stop.map(str::to_owned),
        ..Sampling::default()
    }
}

/// Texts of each label that are asked for.
fn asked(options: &AugmentOptions) -> usize {
    (options.per_class as f64 * options.spare).ceil() as usize
}

/// Lists of one label each to go on with, one text an answer. A label that nothing can be shown of is asked for.
fn lists(options: &FdktOptions, labels: &Labels, shown: &[Labelled]) -> Result<Vec<Question>, Error> {
    let how = &options.augment;
    let of_labels = places(labels, shown)?;
    let mut questions = Vec::new();
    for (label, name) in labels.names().iter().enumerate() {
        let own: Vec<usize> = (0..shown.len()).filter(|place| of_labels[*place] == label).collect();
        let records: Vec<Labelled> = own.iter().map(|place| shown[*place].clone()).collect();
        let count = how.demonstrations.min(own.len());
        let seed = how.seed.wrapping_add(label as u64);
        let one = Labels::new([name.as_str()])?;
        let mut queue = (count > 0).then(|| Demonstrations::new(&records, &one, count, seed)).transpose()?;
        let mut demonstrations: Vec<usize> = Vec::new();
        for number in 0..asked(how) {
            if number % how.per_prompt == 0
                && let Some(queue) = &mut queue
            {
                demonstrations = at(&records, &queue.draw()).into_iter().map(|place| own[place]).collect();
            }
            let texts: Vec<&str> = demonstrations.iter().map(|place| shown[*place].text.as_str()).collect();
            let prompt = if texts.is_empty() {
                Prompt::new(options.question(name))
            } else {
                Prompt::to_continue(unfinished_list(&options.about, name, &texts))
            };
            let prompt = Prompt { options: sampling(how, 1, Some("\n")), sample: number as u32, ..prompt };
            questions.push(Question { prompt, demonstrations: demonstrations.clone(), label: Some(label) });
        }
    }
    Ok(questions)
}

/// Demonstrations of every label that has any, and a layout to answer in.
fn layouts(options: &FdktOptions, labels: &Labels, shown: &[Labelled]) -> Result<Vec<Question>, Error> {
    let how = &options.augment;
    let known = |name: &&String| shown.iter().any(|text| text.label == **name);
    let with_texts: Vec<&String> = labels.names().iter().filter(known).collect();
    let fewest =
        with_texts.iter().map(|name| shown.iter().filter(|text| text.label == ***name).count()).min();
    let count = how.demonstrations.min(fewest.unwrap_or(0));
    let mut queue = if count > 0 {
        let labels = Labels::new(with_texts.into_iter().cloned())?;
        Some(Demonstrations::new(shown, &labels, count, how.seed)?)
    } else {
        None
    };
    let mut questions = Vec::new();
    let wanted = balance::schedule(labels, asked(how), how.seed);
    for (number, wanted) in wanted.chunks(how.per_prompt).enumerate() {
        let drawn = queue.as_mut().map(Demonstrations::draw).unwrap_or_default();
        let question = prompt(&options.about, &drawn, labels, wanted)?;
        let options = sampling(how, how.per_prompt, None);
        let prompt = Prompt { options, sample: number as u32, ..Prompt::new(question) };
        questions.push(Question { prompt, demonstrations: at(shown, &drawn), label: None });
    }
    Ok(questions)
}

/// Places of drawn texts among those that they were drawn from.
fn at(texts: &[Labelled], drawn: &[&Labelled]) -> Vec<usize> {
    drawn.iter().filter_map(|drawn| texts.iter().position(|text| std::ptr::eq(text, *drawn))).collect()
}

/// The samples in all answers, of each the question it answers, and what could not be read.
fn answers(
    tools: &Tools<'_>,
    llm: &dyn Llm,
    labels: &Labels,
    questions: &[Question],
    what: &str,
) -> Result<(Vec<Labelled>, Vec<usize>, Step), Error> {
    let (mut samples, mut origins, mut step) = (Vec::new(), Vec::new(), Step::new("read", 0));
    let mut open: Vec<usize> = (0..questions.len()).collect();
    for attempt in 0..ATTEMPTS {
        let prompts: Vec<Prompt> =
            open.iter().map(|place| questions[*place].prompt.clone().again(attempt)).collect();
        let mut empty = Vec::new();
        for (place, answer) in open.iter().zip(ask(tools, llm, what, &prompts)?) {
            let read = match questions[*place].label {
                Some(label) => first_line(&answer, &labels.names()[label]),
                None => parse_generated(&answer.text, labels),
            };
            if read.step.given == 0 {
                empty.push(*place);
            }
            origins.extend(read.samples.iter().map(|_| *place));
            samples.extend(read.samples);
            step.given += read.step.given;
            for (reason, count) in read.step.dropped {
                *step.dropped.entry(reason).or_default() += count;
            }
        }
        open = empty;
    }
    step.given += open.len();
    open.iter().for_each(|_| step.drop_one("no sample in the answer"));
    Ok((samples, origins, step))
}

/// What goes on with a list, or answers for one text: the first line with a word on it, without a number or a name of who speaks
/// before it.
fn first_line(answer: &Completion, label: &str) -> sheaf_text::few_shot::Generated {
    let bare = |line: &str| {
        let marks = |c: char| c.is_ascii_digit() || ".):- ".contains(c);
        let line = tidy(line.trim_start_matches(marks));
        let said =
            ["A:", "Q:", "Customer:", "Question:", "User:"].iter().find_map(|who| line.strip_prefix(who));
        tidy(said.unwrap_or(&line))
    };
    let line = answer.text.lines().map(bare).find(|line| !line.is_empty());
    let samples: Vec<Labelled> = line.into_iter().map(|line| Labelled::new(line, label)).collect();
    sheaf_text::few_shot::Generated { step: Step::new("read", samples.len()), samples }
}

/// Texts that go on, with the doubt about their labels.
struct Chosen {
    places: Vec<usize>,
    doubts: Vec<f64>,
    steps: Vec<Step>,
}

/// Drops what another label fits better, what says the same as a demonstration or an earlier text, and of each label what is
/// more than was wanted: those that are most in doubt go first.
fn choose(
    options: &FdktOptions,
    labels: &Labels,
    texts: &[Labelled],
    vectors: &UnitVectors,
    (shown, meaning): (&UnitVectors, &Meaning),
) -> Result<Chosen, Error> {
    let own = places(labels, texts)?;
    let doubts: Vec<f64> =
        own.iter().enumerate().map(|(at, label)| meaning.doubt(vectors.row(at), *label)).collect();
    let mut steps = vec![Step::new("label check", texts.len())];
    let mut order: Vec<usize> = (0..texts.len()).filter(|at| doubts[*at] <= options.augment.margin).collect();
    (order.len()..texts.len()).for_each(|_| steps[0].drop_one("another label fits better"));

    let mut near = Step::new("near-duplicates", order.len());
    let mut kept: Vec<usize> = Vec::new();
    order.sort_by(|a, b| doubts[*a].total_cmp(&doubts[*b]).then(a.cmp(b)));
    for at in order {
        let row = vectors.row(at);
        let close = |other: &[f32]| cosine(row, other) > options.filter.near;
        if (0..shown.len()).any(|other| close(shown.row(other))) {
            near.drop_one("near a demonstration");
        } else if kept.iter().any(|other| close(vectors.row(*other))) {
            near.drop_one("near another answer");
        } else {
            kept.push(at);
        }
    }
    steps.push(near);
    let mut enough = Step::new("enough", kept.len());
    let mut counts = vec![0; labels.count()];
    kept.retain(|at| {
        counts[own[*at]] += 1;
        let wanted = counts[own[*at]] <= options.augment.per_class;
        if !wanted {
            enough.drop_one("more than was wanted");
        }
        wanted
    });
    steps.push(enough);
    kept.sort_unstable();
    let doubts = kept.iter().map(|at| doubts[*at]).collect();
    Ok(Chosen { places: kept, doubts, steps })
}

/// Some of the vectors.
pub(super) fn subset(vectors: &UnitVectors, places: &[usize]) -> Result<UnitVectors, Error> {
    let rows: Vec<f32> = places.iter().flat_map(|place| vectors.row(*place).iter().copied()).collect();
    Ok(UnitVectors::new(&rows, vectors.dim())?)
}
