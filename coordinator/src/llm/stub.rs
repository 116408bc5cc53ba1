//! Models for tests: one of this process that answers by a script, and a server that fails in the ways servers do.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{Completion, Finish, Llm, LlmError, Prompt, Usage};

type Script = dyn Fn(&Prompt, usize) -> Result<String, LlmError> + Send + Sync;
type Takes = dyn Fn(&Prompt) -> Duration + Send + Sync;

/// Answers a prompt by its text and by how many were asked before it.
pub(crate) struct Scripted {
    width: usize,
    follows: bool,
    script: Box<Script>,
    takes: Mutex<Box<Takes>>,
    prompts: Mutex<Vec<Prompt>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Scripted {
    pub(crate) fn new(
        width: usize,
        script: impl Fn(&Prompt, usize) -> Result<String, LlmError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            width,
            follows: true,
            script: Box::new(script),
            takes: Mutex::new(Box::new(|_| Duration::ZERO)),
            prompts: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }

    /// One that only goes on with texts.
    pub(crate) fn that_continues(self) -> Self {
        Self { follows: false, ..self }
    }

    /// Gives each prompt back.
    pub(crate) fn echo(width: usize) -> Self {
        Self::new(width, |prompt, _| Ok(prompt.user.clone()))
    }

    pub(crate) fn takes(&self, takes: impl Fn(&Prompt) -> Duration + Send + Sync + 'static) {
        *self.takes.lock().unwrap() = Box::new(takes);
    }

    pub(crate) fn prompts(&self) -> Vec<Prompt> {
        self.prompts.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> usize {
        self.prompts.lock().unwrap().len()
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.most.load(SeqCst)
    }
}

/// Counts itself out when its future is dropped as well.
struct Out<'a>(&'a AtomicUsize);

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[tonic::async_trait]
impl Llm for Scripted {
    fn name(&self) -> String {
        "scripted".to_owned()
    }

    fn concurrency(&self) -> usize {
        self.width
    }

    fn follows_instructions(&self) -> bool {
        self.follows
    }

    async fn complete(&self, prompt: &Prompt) -> Result<Completion, LlmError> {
        let at = {
            let mut prompts = self.prompts.lock().unwrap();
            prompts.push(prompt.clone());
            prompts.len() - 1
        };
        self.most.fetch_max(self.now.fetch_add(1, SeqCst) + 1, SeqCst);
        let _out = Out(&self.now);
        let takes = (self.takes.lock().unwrap())(prompt);
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        (self.script)(prompt, at).map(|text| Completion {
            text,
            usage: Usage { prompt_tokens: 1, completion_tokens: 1 },
            finish: Finish::Stop,
        })
    }
}

/// What the server does with a request.
#[derive(Clone)]
pub(super) enum Act {
    /// Answers with a status, further header lines ("Name: value\r\n") and a body.
    Answer(u16, &'static str, String),
    /// Answers well, after a while.
    After(Duration),
    /// Never answers.
    Hang,
    /// Closes the connection in the middle of the body.
    Cut,
    /// Closes the connection before any answer.
    Close,
}

/// A body that says `text`, with 7 tokens read and 3 written.
pub(super) fn says(text: &str) -> String {
    json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}})
    .to_string()
}

pub(super) fn well(text: &str) -> Act {
    Act::Answer(200, "", says(text))
}

#[derive(Default)]
struct Seen {
    heads: Vec<String>,
    bodies: Vec<Value>,
    now: usize,
    most: usize,
}

/// A server that does one act per request; the last act is done again and again.
pub(super) struct Server {
    pub(super) url: String,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    pub(super) async fn start(acts: Vec<Act>) -> Self {
        Self::over(acts, None).await
    }

    /// The same over TLS.
    pub(super) async fn over(acts: Vec<Act>, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{}/v1", listener.local_addr().unwrap().port());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (acts, shared) = (Arc::new(acts), seen.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acts, seen, tls) = (acts.clone(), shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &acts, &seen).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &acts, &seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, seen }
    }

    pub(super) fn requests(&self) -> usize {
        self.seen.lock().unwrap().bodies.len()
    }
    pub(super) fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().heads.clone()
    }
    pub(super) fn bodies(&self) -> Vec<Value> {
        self.seen.lock().unwrap().bodies.clone()
    }
    pub(super) fn most_at_once(&self) -> usize {
        self.seen.lock().unwrap().most
    }
}

/// Serves a connection until either side closes it.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, acts: &[Act], seen: &Mutex<Seen>) {
    while let Some((head, body)) = request(&mut stream).await {
        let act = {
            let mut seen = seen.lock().unwrap();
            seen.heads.push(head);
            seen.bodies.push(body);
            seen.now += 1;
            seen.most = seen.most.max(seen.now);
            acts[(seen.bodies.len() - 1).min(acts.len() - 1)].clone()
        };
        let answer = |status: u16, headers: &str, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {status} x\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes()
        };
        let (bytes, goes_on) = match act {
            Act::Answer(status, headers, body) => (answer(status, headers, &body), true),
            Act::After(wait) => {
                tokio::time::sleep(wait).await;
                (answer(200, "", &says("late")), true)
            }
            Act::Hang => std::future::pending().await,
            Act::Cut => {
                let mut bytes = answer(200, "", &says("cut"));
                bytes.truncate(bytes.len() - 20);
                (bytes, false)
            }
            Act::Close => (Vec::new(), false),
        };
        seen.lock().unwrap().now -= 1;
        let sent = stream.write_all(&bytes).await;
        if !goes_on || sent.is_err() {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// Reads one request: its head and its JSON.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let length: usize =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, serde_json::from_slice(&bytes[end..]).unwrap()))
}
