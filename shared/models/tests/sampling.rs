//! Many texts at once, each from its own seed, by a small random Llama.

use std::cell::Cell;

use sheaf_models::{ModelError, slm::generate::Sampling};

use crate::tiny_llama::model;

fn sampling() -> Sampling {
    Sampling { temperature: 1.0, top_p: 0.9, max_tokens: 12, ..Sampling::default() }
}

#[test]
fn a_text_depends_on_its_prompt_and_seed_alone() {
    let model = model();
    let [short, long] = ["Q: A", "Say hello in"].map(|text| model.vocabulary().encode(text).unwrap());
    assert_ne!(short.len(), long.len(), "prompts that are run at once are padded");
    let write = |requests: &[(&Vec<u32>, u64)]| {
        let requests: Vec<_> = requests.iter().map(|(prompt, seed)| ((*prompt).clone(), *seed)).collect();
        model.generate_each(None, &requests, &sampling(), &|| false).unwrap()
    };
    let all = write(&[(&short, 1), (&short, 2), (&long, 1), (&short, 1), (&long, 7)]);
    assert_eq!(all[0], all[3]);
    assert_ne!(all[0].tokens, all[1].tokens);
    assert_ne!(all[2].tokens, all[4].tokens);
    assert_eq!(write(&[(&short, 2)])[0], all[1]);
    assert_eq!(write(&[(&long, 7), (&long, 1)]), [all[4].clone(), all[2].clone()]);
    let other_seed = Sampling { seed: 99, ..sampling() };
    let again = model.generate_each(None, &[(short, 1)], &other_seed, &|| false).unwrap();
    assert_eq!(again[0], all[0], "the common seed is not looked at");
    assert!(write(&[]).is_empty());
}

#[test]
fn writing_stops_at_the_next_token_when_it_is_cancelled() {
    let model = model();
    let prompt = model.vocabulary().encode("Q: A").unwrap();
    let asked = Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() == 4
    };
    let requests: Vec<_> = (0..20).map(|seed| (prompt.clone(), seed)).collect();
    let stopped = model.generate_each(None, &requests, &sampling(), &cancelled);
    assert!(matches!(stopped, Err(ModelError::Stopped)));
    assert_eq!(asked.get(), 4);
}
