use super::*;

#[test]
fn which_failures_may_pass() {
    let table = [
        (Code::Ok, false),
        (Code::Cancelled, true),
        (Code::Unknown, false),
        (Code::InvalidArgument, false),
        (Code::DeadlineExceeded, true),
        (Code::NotFound, false),
        (Code::AlreadyExists, false),
        (Code::PermissionDenied, false),
        (Code::ResourceExhausted, false),
        (Code::FailedPrecondition, false),
        (Code::Aborted, true),
        (Code::OutOfRange, false),
        (Code::Unimplemented, false),
        (Code::Internal, false),
        (Code::Unavailable, true),
        (Code::DataLoss, false),
        (Code::Unauthenticated, false),
    ];
    assert_eq!(table.len(), 17, "every code of gRPC");
    for (code, transient) in table {
        assert_eq!(is_transient(&Status::new(code, "said so")), transient, "{code:?}");
    }
}

#[test]
fn a_broken_link_is_told_by_its_words() {
    for text in [
        "transport error",
        "h2 protocol error: error reading a body from connection",
        "connection reset by peer",
        "broken pipe",
        "stream closed because of a broken pipe",
        "error reading a body",
    ] {
        for code in [Code::Unknown, Code::Internal] {
            assert!(is_transient(&Status::new(code, text)), "{code:?} {text}");
        }
        assert!(
            !is_transient(&Status::new(Code::InvalidArgument, text)),
            "the words count only where tonic has no code"
        );
    }
}

#[test]
fn waits_grow_to_the_longest_and_never_end() {
    let waits: Vec<Duration> = reconnect().take(200).collect();
    assert_eq!(waits.len(), 200);
    let (shortest, longest) = (Duration::from_millis(200), Duration::from_secs(30));
    assert!(waits.iter().all(|wait| *wait >= shortest));
    assert!(waits[0] <= 2 * shortest, "the first try comes soon");
    // Jitter adds up to as much again.
    assert!(waits.iter().all(|wait| *wait <= 2 * longest));
    assert!(waits[50..].iter().all(|wait| *wait >= longest));
    let distinct: std::collections::BTreeSet<_> = waits[50..].iter().collect();
    assert!(distinct.len() > 100, "a thousand agents do not return at once");
}
