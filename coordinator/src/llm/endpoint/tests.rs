//! The client against a server that fails in the ways servers do.

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring, version::TLS13};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::llm::{
    Cached, Finish, Usage, complete_all,
    stub::{Act, Server, says, well},
};

const KEY: &str = "sk-very-secret-0123456789";

fn settings(url: &str) -> Settings {
    Settings {
        base_url: url.to_owned(),
        model: "tiny".to_owned(),
        key: Some(ApiKey::new(KEY).unwrap()),
        timeout: Duration::from_secs(20),
        concurrency: 4,
        attempts: 3,
        allow_plaintext: false,
        follows_instructions: true,
        price: None,
    }
}

/// An endpoint that hardly waits between attempts.
fn quick(settings: Settings) -> Endpoint {
    let mut endpoint = Endpoint::new(settings).unwrap();
    endpoint.first_wait = Duration::from_millis(1);
    endpoint
}

async fn server(acts: Vec<Act>) -> (Server, Endpoint) {
    let server = Server::start(acts).await;
    let endpoint = quick(settings(&server.url));
    (server, endpoint)
}

fn failing(status: u16, message: &str) -> Act {
    Act::Answer(status, "", json!({"error": {"message": message}}).to_string())
}

#[tokio::test]
async fn an_answer_comes_with_its_usage_and_costs_its_price() {
    let server = Server::start(vec![well("hello")]).await;
    let price = Some(Price { input: 1e6, output: 2e6 });
    let endpoint = quick(Settings { price, ..settings(&server.url) });
    let prompt = Prompt { system: Some("be brief".to_owned()), ..Prompt::new("hi") };
    let completion = endpoint.complete(&prompt).await.unwrap();
    let usage = Usage { prompt_tokens: 7, completion_tokens: 3 };
    assert_eq!(completion, Completion { text: "hello".to_owned(), usage, finish: Finish::Stop });
    endpoint.complete(&prompt).await.unwrap();
    let totals = endpoint.totals();
    assert_eq!((totals.requests, totals.retries, totals.cache_hits), (2, 0, 0));
    assert_eq!((totals.prompt_tokens, totals.completion_tokens, totals.cost), (14, 6, Some(26.0)));
    let head = &server.heads()[0];
    assert!(head.starts_with("post /v1/chat/completions http/1.1"), "{head}");
    assert!(head.contains(&format!("authorization: bearer {KEY}")), "{head}");
    assert_eq!(server.bodies()[0]["model"], "tiny");
}

#[tokio::test]
async fn a_server_that_is_busy_is_left_alone_as_long_as_it_asks() {
    let (server, endpoint) =
        server(vec![Act::Answer(429, "Retry-After: 1\r\n", "slow down".to_owned()), well("hello")]).await;
    let began = Instant::now();
    assert_eq!(endpoint.complete(&Prompt::new("hi")).await.unwrap().text, "hello");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((server.requests(), endpoint.totals().retries), (2, 1));
}

#[tokio::test]
async fn a_server_that_asks_for_hours_is_given_up_at_once() {
    let (server, endpoint) =
        server(vec![Act::Answer(429, "Retry-After: 7200\r\n", "quota".to_owned())]).await;
    let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
    let LlmError::Transient { what, retry_after } = error else { panic!("{error:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(7200)));
    assert!(what.contains("429") && what.contains("quota"), "{what}");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn failures_that_pass_are_waited_out() {
    for bad in [failing(500, "oops"), failing(503, "loading"), Act::Cut, Act::Close] {
        let (server, endpoint) = server(vec![bad.clone(), bad, well("hello")]).await;
        assert_eq!(endpoint.complete(&Prompt::new("hi")).await.unwrap().text, "hello");
        let totals = endpoint.totals();
        assert_eq!((server.requests(), totals.requests, totals.retries), (3, 3, 2));
        assert_eq!(totals.prompt_tokens, 7, "only what was answered is counted");
    }
}

#[tokio::test]
async fn attempts_are_bounded() {
    let (server, endpoint) = server(vec![failing(500, "oops")]).await;
    let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
    assert!(error.is_transient());
    let text = error.to_string();
    for part in ["500", "oops", "attempt 3 of 3", &server.url] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_server_that_hangs_is_left_after_the_time() {
    let server = Server::start(vec![Act::Hang]).await;
    let timeout = Duration::from_millis(300);
    let endpoint = quick(Settings { timeout, attempts: 2, ..settings(&server.url) });
    let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("within 300ms"), "{error}");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_broken_connection() {
    let (_server, endpoint) = server(vec![Act::Cut]).await;
    let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("broke within the answer"), "{error}");
}

#[tokio::test]
async fn nobody_at_the_address_is_transient() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = quick(settings(&format!("http://127.0.0.1:{port}/v1")));
    let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("is the server running"), "{error}");
    assert_eq!(endpoint.totals().requests, 3);
}

#[tokio::test]
async fn what_is_not_the_protocol_is_rubbish_and_not_asked_for_again() {
    for body in ["<html>Welcome</html>", "{\"choices\": []}", "{", ""] {
        let (server, endpoint) = server(vec![Act::Answer(200, "", body.to_owned())]).await;
        let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
        assert!(matches!(error, LlmError::Rubbish { .. }), "{body}: {error:?}");
        assert!(error.to_string().contains("base_url"), "{error}");
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_not_asked_again() {
    for (status, hint) in
        [(400, ""), (401, "key_file"), (403, "key_file"), (404, "model"), (307, "redirects")]
    {
        let (server, endpoint) = server(vec![failing(status, "because of this")]).await;
        let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
        assert!(matches!(error, LlmError::Refused { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&status.to_string()) && text.contains("because of this"), "{text}");
        assert!(text.contains(hint), "{text}");
        assert_eq!((server.requests(), endpoint.totals().retries), (1, 0));
    }
}

#[tokio::test]
async fn a_model_that_declines_is_a_refusal() {
    let body =
        json!({"choices": [{"message": {"content": null, "refusal": "I would rather not"}}]}).to_string();
    let (_server, endpoint) = server(vec![Act::Answer(200, "", body)]).await;
    let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
    assert!(matches!(error, LlmError::Refused { .. }) && error.to_string().contains("rather not"), "{error}");
}

#[tokio::test]
async fn options_that_cannot_be_are_not_sent() {
    let (server, endpoint) = server(vec![well("hello")]).await;
    let mut prompt = Prompt::new("hi");
    prompt.options.top_p = 0.0;
    assert!(matches!(endpoint.complete(&prompt).await, Err(LlmError::Refused { .. })));
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn the_key_is_in_no_error_and_in_no_debug_text() {
    let echo = format!("what is {KEY}?");
    for act in [
        failing(401, &echo),
        failing(500, &echo),
        Act::Answer(404, "", echo.clone()),
        Act::Answer(400, "", format!("{}{KEY}", "x".repeat(MESSAGE - 5))),
        Act::Answer(200, "", echo.clone()),
        Act::Answer(200, "", json!({"choices": [{"message": {"refusal": echo}}]}).to_string()),
        // An error of the parser repeats what it found.
        Act::Answer(200, "", json!({"choices": KEY}).to_string()),
        Act::Close,
        Act::Cut,
    ] {
        let (_server, endpoint) = server(vec![act]).await;
        let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
        for text in [error.to_string(), format!("{error:?}"), format!("{endpoint:?}"), endpoint.name()] {
            assert!(!text.contains("sk-"), "{text}");
        }
    }
}

#[tokio::test]
async fn a_long_message_is_cut() {
    let (_server, endpoint) = server(vec![failing(400, &"ä\n".repeat(5_000))]).await;
    let text = endpoint.complete(&Prompt::new("hi")).await.unwrap_err().to_string();
    assert!(text.chars().count() < MESSAGE + 100 && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn no_more_requests_than_allowed_are_on_their_way() {
    let server = Server::start(vec![Act::After(Duration::from_millis(100))]).await;
    let endpoint = quick(Settings { concurrency: 3, ..settings(&server.url) });
    let prompt = Prompt::new("hi");
    let answers = join_all((0..12).map(|_| endpoint.complete(&prompt))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((server.requests(), server.most_at_once()), (12, 3));
}

#[tokio::test]
async fn a_server_of_the_older_way_to_ask_for_json_is_remembered() {
    // The second is what llama_cpp.server 0.3 says.
    let words = "1 validation error: {'loc': ('body', 'response_format', 'type'), 'msg': \"Input should be 'text' or 'json_object'\"}";
    for refusal in [failing(422, "json_schema"), failing(500, words)] {
        let (server, endpoint) = server(vec![refusal, well("{}")]).await;
        let mut prompt = Prompt::new("hi");
        prompt.options.format = Format::Json(json!({"type": "object"}));
        for _ in 0..2 {
            assert_eq!(endpoint.complete(&prompt).await.unwrap().text, "{}");
        }
        let kinds: Vec<_> =
            server.bodies().iter().map(|body| body["response_format"]["type"].clone()).collect();
        assert_eq!(kinds, ["json_schema", "json_object", "json_object"]);
        assert_eq!((endpoint.totals().requests, endpoint.totals().retries), (3, 0));
    }
}

#[tokio::test]
async fn a_schema_that_is_refused_either_way_is_refused_in_the_first_words() {
    let (server, endpoint) = server(vec![failing(400, "bad schema"), failing(400, "unknown field")]).await;
    let mut prompt = Prompt::new("hi");
    prompt.options.format = Format::Json(json!({}));
    let text = endpoint.complete(&prompt).await.unwrap_err().to_string();
    assert!(text.contains("bad schema") && !text.contains("unknown field"), "{text}");
    assert_eq!(server.requests(), 2);
    assert!(!endpoint.plain_json.load(Relaxed));
}

#[tokio::test]
async fn a_cancelled_run_goes_on_without_paying_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut acts = vec![well("hello"); 5];
    acts.push(Act::Hang);
    let prompts: Vec<_> = (0..9).map(|i| Prompt::new(format!("{i}"))).collect();
    let first = Server::start(acts).await;
    let endpoint = quick(Settings { concurrency: 1, ..settings(&first.url) });
    let cached = Cached::open(endpoint, folder.path()).unwrap();
    let cancel = CancellationToken::new();
    let mut progress = |p: crate::llm::many::Progress| {
        if p.done == 5 {
            cancel.cancel();
        }
    };
    let outcomes = complete_all(&cached, &prompts, &mut progress, &cancel).await;
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 5);
    drop(cached);

    // Back under the same address, as the same model: asked are the four that have no answer.
    let second = Server::start(vec![well("hello")]).await;
    let mut endpoint = quick(settings(&second.url));
    endpoint.address.base = first.url.clone();
    let cached = Cached::open(endpoint, folder.path()).unwrap();
    let outcomes = complete_all(&cached, &prompts, &mut |_| (), &CancellationToken::new()).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!((second.requests(), cached.totals().cache_hits), (4, 5));
}

/// A server certificate for localhost from an authority of its own.
fn authority() -> (RootCertStore, tokio_rustls::TlsAcceptor) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (roots, Arc::new(config).into())
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_taken() {
    let (roots, acceptor) = authority();
    let server = Server::over(vec![Act::Answer(200, "", says("hello"))], Some(acceptor)).await;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let settings = settings(&server.url);
    let transport = Transport::with_tls(config, settings.timeout);
    let endpoint = Endpoint::over(settings, transport).unwrap();
    assert_eq!(endpoint.complete(&Prompt::new("hi")).await.unwrap().text, "hello");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_before_anything_is_sent() {
    let (_, acceptor) = authority();
    let server = Server::over(vec![well("hello")], Some(acceptor)).await;
    let endpoint = quick(settings(&server.url));
    let error = endpoint.complete(&Prompt::new("hi")).await.unwrap_err();
    assert!(matches!(error, LlmError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!((server.requests(), endpoint.totals().requests), (0, 1));
}
