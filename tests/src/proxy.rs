//! A network that breaks: a TCP proxy that counts, cuts and holds.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Which way bytes go, as the dialling side sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the coordinator.
    Up,
    /// From the coordinator.
    Down,
}

/// What happens to the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every connection is cut.
    Cut,
    /// Bytes of that way stay where they are, until [`Proxy::release`].
    Hold,
}

#[derive(Debug)]
struct Plan {
    way: Way,
    left: u64,
    fault: Fault,
}

#[derive(Debug)]
struct Shared {
    up: AtomicU64,
    down: AtomicU64,
    plans: Mutex<VecDeque<Plan>>,
    /// Faults that have happened.
    happened: watch::Sender<usize>,
    held: watch::Sender<Option<Way>>,
    /// Ends the connections of now.
    cut: Mutex<CancellationToken>,
}

/// A proxy before a coordinator.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _end: DropGuard,
}

impl Proxy {
    /// Listens on a port of its own and passes on to `target`.
    pub async fn before(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            plans: Mutex::default(),
            happened: watch::Sender::new(0),
            held: watch::Sender::new(None),
            cut: Mutex::default(),
        });
        let end = CancellationToken::new();
        tokio::spawn(accept(listener, target, Arc::clone(&shared), end.clone()));
        Self { port, shared, _end: end.drop_guard() }
    }

    /// The address to dial.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Plans a fault after so many bytes of one way, counted from the fault before it.
    pub fn plan(&self, way: Way, after: u64, fault: Fault) {
        self.shared.plans.lock().unwrap().push_back(Plan { way, left: after, fault });
    }

    /// Waits until so many faults have happened.
    pub async fn happened(&self, faults: usize) {
        let mut watch = self.shared.happened.subscribe();
        let wait = watch.wait_for(|happened| *happened >= faults);
        tokio::time::timeout(std::time::Duration::from_secs(60), wait)
            .await
            .expect("the planned fault does not happen")
            .unwrap();
    }

    /// Faults so far.
    pub fn faults(&self) -> usize {
        *self.shared.happened.borrow()
    }

    /// Lets held bytes go.
    pub fn release(&self) {
        self.shared.held.send_replace(None);
    }

    /// Bytes passed on, to and from the coordinator, since the last [`Proxy::count_anew`].
    pub fn counted(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.shared.up), read(&self.shared.down))
    }

    /// Counts from 0 again.
    pub fn count_anew(&self) {
        self.shared.up.store(0, Ordering::Relaxed);
        self.shared.down.store(0, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, target: u16, shared: Arc<Shared>, end: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => return shared.cut.lock().unwrap().cancel(),
            accepted = listener.accept() => accepted,
        };
        let Ok((near, _)) = accepted else { continue };
        let cut = shared.cut.lock().unwrap().clone();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A coordinator that is away looks like a cut.
            let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else {
                return;
            };
            drop((near.set_nodelay(true), far.set_nodelay(true)));
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::select! {
                () = cut.cancelled() => {}
                () = pump(near_read, far_write, Way::Up, &shared) => {}
                () = pump(far_read, near_write, Way::Down, &shared) => {}
            }
        });
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    way: Way,
    shared: &Shared,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let n = match from.read(&mut buffer).await {
            Ok(n) if n > 0 => n,
            _ => return,
        };
        let fault = shared.spend(way, n as u64);
        if fault == Some(Fault::Cut) {
            return shared.cut_now();
        }
        let mut held = shared.held.subscribe();
        if held.wait_for(|held| *held != Some(way)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
        let counter = if way == Way::Up { &shared.up } else { &shared.down };
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

impl Shared {
    /// Counts bytes against the first plan; the fault that is due now, if any.
    fn spend(&self, way: Way, bytes: u64) -> Option<Fault> {
        let mut plans = self.plans.lock().unwrap();
        let plan = plans.front_mut().filter(|plan| plan.way == way)?;
        plan.left = plan.left.saturating_sub(bytes);
        if plan.left > 0 {
            return None;
        }
        let fault = plan.fault;
        plans.pop_front();
        if fault == Fault::Hold {
            self.held.send_replace(Some(way));
        }
        drop(plans);
        self.happened.send_modify(|n| *n += 1);
        Some(fault)
    }

    fn cut_now(&self) {
        let mut cut = self.cut.lock().unwrap();
        cut.cancel();
        *cut = CancellationToken::new();
    }
}
