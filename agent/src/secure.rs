//! The site's side of secure sums (docs/secure-aggregation.md): what it keeps between the stages, whose keys it
//! accepts, and the answer to each stage. For any workload: it brings the vector, and gets the bytes to send.
//!
//! A stage's outcome is on the disk before its message exists. Asked again, after a crash or a lost message, the site
//! gives the same answer; asked anything else in the same round, it refuses.

mod memory;
mod peers;

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use rand::{
    SeedableRng as _,
    rngs::{StdRng, SysRng},
};
use sha2::{Digest as _, Sha256};
use sheaf_proto::secure::{Introduction, MaybeSecure, Register, SecureSpec};
use sheaf_secagg::{
    Inbox, SecAggError, Signer, Site, SiteId, SitePolicy, Stage, Subject, Task, Terms, UnmaskRequest,
    Uploaded, Wire,
};
use sheaf_transport::signature::{Credentials, SigningKey};

use crate::{
    config::Policy,
    egress::Made,
    error::AgentError,
    identity::Identity,
    state::State,
    task::{Assignment, parse},
};
use memory::Memory;

/// What a site needs for the stages of secure sums within one task.
pub struct SecureRounds<'a> {
    /// Where states and the history are kept.
    pub state: &'a State,
    /// Signs, and knows the authority.
    pub identity: &'a Identity,
    /// The site's limits and pinned peers.
    pub policy: &'a Policy,
    /// One for the whole agent: the history is read, changed and saved by one task at a time.
    pub turn: &'a Mutex<()>,
    /// The task's run.
    pub run_id: &'a str,
    /// The plan's hash, as the task has it: 64 hexadecimal digits.
    pub plan_sha256: &'a str,
}

/// What the secure sum of an assignment is about.
///
/// # Errors
/// [`AgentError::Task`] where the specification is of another stage, or of no secure sum.
pub fn asked(assignment: &Assignment, stage: Stage) -> Result<SecureSpec, AgentError> {
    let MaybeSecure { secure } = parse(&assignment.spec)?;
    secure.filter(|asked| asked.stage == stage).ok_or_else(|| {
        AgentError::Task(format!("phase \"{}\" does not say what the secure sum is about", assignment.phase))
    })
}

/// The vector must be as long as what is asked for.
///
/// # Errors
/// [`AgentError::Task`].
pub fn check_length(asked: &SecureSpec, length: u64) -> Result<(), AgentError> {
    if asked.terms.length == length {
        return Ok(());
    }
    Err(AgentError::Task(format!(
        "the secure sum is of {} numbers, what is asked for has {length}",
        asked.terms.length
    )))
}

/// The subject of a sum: `domain` keeps sums of one kind apart from those of another over the same records, `content` is the
/// data set's digest, `rest` what else is computed from it.
pub fn subject(domain: &[u8], content: &[u8; 32], rest: &[u8]) -> Subject {
    Sha256::new().chain_update(domain).chain_update(content).chain_update(rest).finalize().into()
}

/// The computing time of a stage that may be told: none of the vector's, which grows with the records in it, of which the sum
/// alone is to be known.
pub fn seconds(stage: Stage, made: &Made, began: Instant) -> f64 {
    if stage == Stage::MaskedInput { 0.0 } else { made.seconds(began) }
}

/// What a vector is computed from (a model, the parameters of a round), which comes with the stages that are about the vector
/// and is empty in the others; then the inputs of the stage itself.
///
/// # Errors
/// [`AgentError::Task`] naming `what` where it is not there.
pub fn split_inputs<'a>(
    assignment: &'a Assignment,
    stage: Stage,
    what: &str,
) -> Result<(&'a [u8], &'a [Vec<u8>]), AgentError> {
    let (first, rest) = split_many(assignment, stage, 1, what)?;
    Ok((first.first().map_or(&[], Vec::as_slice), rest))
}

/// Inputs that a vector is computed from, then those of the stage.
pub type Split<'a> = (&'a [Vec<u8>], &'a [Vec<u8>]);

/// The same where a vector is computed from several inputs.
///
/// # Errors
/// [`AgentError::Task`] naming `what` where there are fewer.
pub fn split_many<'a>(
    assignment: &'a Assignment,
    stage: Stage,
    count: usize,
    what: &str,
) -> Result<Split<'a>, AgentError> {
    let count = if matches!(stage, Stage::Advertise | Stage::MaskedInput) { count } else { 0 };
    assignment.inputs.split_at_checked(count).ok_or_else(|| AgentError::Task(what.to_owned()))
}

struct Key<'a>(&'a SigningKey);

impl Signer for Key<'_> {
    fn sign(&self, statement: &[u8]) -> Result<Vec<u8>, String> {
        self.0.sign(statement).map_err(|e| e.to_string())
    }
}

impl SecureRounds<'_> {
    /// Answers a stage.
    ///
    /// `inputs` are the task's, in order. `subject` says what is summed: a digest over the data set's content and over
    /// what is computed from it; sums of the same subject can be subtracted from one another, and are refused if too few
    /// sites would be left. It is called in the first stage, and in the input stage to see that the data are still the
    /// same. `values` gives the vector with what it was made of, and is called in the input stage alone: what the other
    /// stages say is made of nothing of records. A site that was killed between saving the
    /// stage and posting its answer calls it again: it must give the same values, since a second vector under the same
    /// masks would give the difference away and is refused.
    ///
    /// # Errors
    /// [`AgentError::Denied`] for what the site's policy, its memory or its pinned peers speak against,
    /// [`AgentError::Task`] for a question out of order or damaged, [`AgentError::Data`] for data that have changed.
    pub fn answer(
        &self,
        asked: &SecureSpec,
        inputs: &[Vec<u8>],
        subject: impl FnOnce() -> Result<Subject, AgentError>,
        values: impl FnOnce() -> Result<(Vec<i64>, Made), AgentError>,
    ) -> Result<(Vec<u8>, Made), AgentError> {
        self.check_terms(&asked.terms)?;
        // Records are read before the agent's other secure sums have to wait.
        let needs_subject = matches!(asked.stage, Stage::Advertise | Stage::MaskedInput);
        let subject = needs_subject.then(subject).transpose()?;
        if let (Stage::MaskedInput, Some(subject)) = (asked.stage, &subject) {
            // What is refused here anyway must not have been paid for.
            self.check_input(asked, inputs, subject)?;
        }
        let (values, made) = match (asked.stage == Stage::MaskedInput).then(values).transpose()? {
            Some((values, made)) => (Some(values), made),
            None => (None, Made::Protocol),
        };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = Memory::load(self.state, &asked.terms)?;
        memory.check(&asked.terms, subject.as_ref().filter(|_| asked.stage == Stage::MaskedInput))?;
        let bytes = match (asked.stage, subject, values) {
            (Stage::Advertise, Some(subject), _) => self.advertise(&mut memory, &asked.terms, subject),
            (Stage::ShareKeys, ..) => self.share(&mut memory, inputs),
            (Stage::MaskedInput, _, Some(values)) => {
                let inbox: Inbox = read(inputs, 0)?;
                let (site, history, store) = memory.parts()?;
                written(&site.mask(&inbox, &values, history, store).map_err(refusal)?)
            }
            (Stage::Consistency, ..) => {
                let uploaded: Uploaded = read(inputs, 0)?;
                let (site, history, store) = memory.parts()?;
                let signer = Key(self.identity.signing());
                written(&site.consistency(&uploaded, history, &signer, store).map_err(refusal)?)
            }
            (Stage::Unmask, ..) => {
                let request: UnmaskRequest = read(inputs, 0)?;
                let peers = self.peers(read(inputs, 1)?)?;
                let (site, history, store) = memory.parts()?;
                written(&site.unmask(&request, history, &peers, store).map_err(refusal)?)
            }
            _ => Err(AgentError::Task("a stage of a secure sum without what it needs".to_owned())),
        }?;
        Ok((bytes, made))
    }

    /// Refuses an input stage for all that does not hang on the vector.
    fn check_input(
        &self,
        asked: &SecureSpec,
        inputs: &[Vec<u8>],
        subject: &Subject,
    ) -> Result<(), AgentError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = Memory::load(self.state, &asked.terms)?;
        memory.check(&asked.terms, Some(subject))?;
        read::<Inbox>(inputs, 0).map(drop)
    }

    /// The round must be of the task that a person or the policy has let in.
    fn check_terms(&self, terms: &Terms) -> Result<(), AgentError> {
        if terms.run != self.run_id || hex::encode(terms.plan) != self.plan_sha256 {
            return Err(AgentError::Denied(
                "the secure sum is of another run or plan than the task it came with".to_owned(),
            ));
        }
        Ok(())
    }

    fn advertise(
        &self,
        memory: &mut Memory<'_>,
        terms: &Terms,
        subject: Subject,
    ) -> Result<Vec<u8>, AgentError> {
        let credentials = self.identity.credentials()?;
        if let Some(site) = memory.site() {
            return written(&Introduction { advert: site.advert().clone(), credentials });
        }
        let site: SiteId = self.identity.profile.site.as_str().parse().map_err(refusal)?;
        let policy = SitePolicy {
            min_cohort: self.policy.min_cohort,
            min_survivors: self.policy.min_cohort,
            min_difference: self.policy.min_difference,
        };
        let task = Task { terms: terms.clone(), site, subject, policy };
        let (history, store) = memory.fresh();
        let (_, advert) = Site::begin(task, history, &mut system()?, &Key(self.identity.signing()), store)
            .map_err(refusal)?;
        written(&Introduction { advert, credentials })
    }

    fn share(&self, memory: &mut Memory<'_>, inputs: &[Vec<u8>]) -> Result<Vec<u8>, AgentError> {
        let register: Register<Credentials> = read(inputs, 0)?;
        let roster = register.roster.clone();
        let peers = self.peers(register)?;
        memory.meet(peers.fingerprints());
        let (site, history, store) = memory.parts()?;
        written(&site.share_keys(roster, history, &mut system()?, &peers, store).map_err(refusal)?)
    }

    fn peers(&self, register: Register<Credentials>) -> Result<peers::Peers, AgentError> {
        peers::Peers::check(register, self.identity, self.policy, self.state)
    }
}

/// A generator that was seeded by the system's.
fn system() -> Result<StdRng, AgentError> {
    StdRng::try_from_rng(&mut SysRng)
        .map_err(|e| AgentError::Task(format!("the system has no random numbers for a secure sum: {e}")))
}

fn read<T: Wire>(inputs: &[Vec<u8>], at: usize) -> Result<T, AgentError> {
    let input = inputs
        .get(at)
        .ok_or_else(|| AgentError::Task(format!("the stage of a secure sum came without {}", T::NAME)))?;
    T::from_bytes(input).map_err(refusal)
}

fn written(message: &impl Wire) -> Result<Vec<u8>, AgentError> {
    message.to_bytes().map_err(refusal)
}

/// What the site's own rules and memory forbid, it declines with the reason; the rest is trouble.
fn refusal(error: SecAggError) -> AgentError {
    let reason = format!("secure aggregation: {error}");
    match error {
        SecAggError::Policy { .. }
        | SecAggError::Terms { .. }
        | SecAggError::TooFew { .. }
        | SecAggError::TooMany { .. }
        | SecAggError::Roster { .. }
        | SecAggError::Signature { .. }
        | SecAggError::ReusedKey { .. }
        | SecAggError::WeakKey { .. }
        | SecAggError::BegunBefore { .. }
        | SecAggError::Changed { .. }
        | SecAggError::Differencing { .. } => AgentError::Denied(reason),
        SecAggError::Store(_) => AgentError::State(reason),
        SecAggError::Signer(_) => AgentError::Identity(reason),
        _ => AgentError::Task(reason),
    }
}
