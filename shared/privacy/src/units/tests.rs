use super::*;

#[test]
fn edges_of_each_range() {
    assert!(
        Epsilon::new(0.0).is_ok() && Epsilon::new(-1e-300).is_err() && Epsilon::new(f64::INFINITY).is_err()
    );
    assert!(Delta::new(0.0).is_ok() && Delta::new(1.0).is_ok() && Delta::new(1.0 + 1e-15).is_err());
    assert!(Sigma::new(f64::MIN_POSITIVE).is_ok() && Sigma::new(0.0).is_err());
    assert!(Rate::new(1.0).is_ok() && Rate::new(0.0).is_err() && Rate::new(1.1).is_err());
    assert!(Scale::new(0.0).is_err() && Scale::new(f64::NAN).is_err());
}

#[test]
fn json_is_a_plain_number_and_is_checked() {
    assert_eq!(serde_json::to_string(&Sigma::new(1.5).unwrap()).unwrap(), "1.5");
    assert_eq!(serde_json::from_str::<Rate>("0.25").unwrap().get(), 0.25);
    let error = serde_json::from_str::<Rate>("1.5").unwrap_err().to_string();
    assert!(error.contains("the sampling rate is 1.5"), "{error}");
}

#[test]
fn text_is_parsed_and_shown() {
    assert_eq!("2e-4".parse::<Delta>().unwrap().get(), 2e-4);
    assert_eq!(format!("{:.2}", Epsilon::new(2.7499).unwrap()), "2.75");
    let error = "four".parse::<Epsilon>().unwrap_err();
    assert_eq!(error.value, "four");
}
