use super::*;

#[test]
fn the_stored_form_is_fixed() {
    let events = [
        (
            Event::PoissonGaussian {
                rate: Rate::new(0.064).unwrap(),
                sigma: Sigma::new(1.0).unwrap(),
                steps: 78,
            },
            r#"{"kind":"poisson_gaussian","rate":0.064,"sigma":1.0,"steps":78}"#,
        ),
        (
            Event::Gaussian { sigma: Sigma::new(2.5).unwrap(), count: 1 },
            r#"{"kind":"gaussian","sigma":2.5,"count":1}"#,
        ),
        (
            Event::Laplace { scale: Scale::new(4.0).unwrap(), count: 3 },
            r#"{"kind":"laplace","scale":4.0,"count":3}"#,
        ),
        (Event::Pure { epsilon: Epsilon::new(0.5).unwrap() }, r#"{"kind":"pure","epsilon":0.5}"#),
    ];
    for (event, json) in events {
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
        assert_eq!(serde_json::from_str::<Event>(json).unwrap(), event);
    }
}

#[test]
fn unknown_and_impossible_entries_are_refused() {
    for json in [
        r#"{"kind":"gaussian","sigma":2.5,"count":1,"note":"x"}"#,
        r#"{"kind":"gaussian","sigma":0.0,"count":1}"#,
        r#"{"kind":"gaussian","sigma":2.5,"count":-1}"#,
        r#"{"kind":"gaussian","sigma":2.5}"#,
        r#"{"kind":"shuffle","sigma":2.5,"count":1}"#,
        r#"{"kind":"poisson_gaussian","rate":1.5,"sigma":1.0,"steps":78}"#,
    ] {
        assert!(serde_json::from_str::<Event>(json).is_err(), "{json}");
    }
}
