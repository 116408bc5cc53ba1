//! Checkpoints of a tuning: the adapter, the optimiser's moments and the step, in one safetensors file. What comes next
//! follows from the seed and the step, so a tuning that is gone on with takes the very steps it would have taken.

use std::{fs, path::Path};

use super::{optimizer::Named, supervised::Tuner};
use crate::{
    ModelError,
    weights::{HostTensor, safetensors},
};

const STEP: &str = "step";
const PARTS: [&str; 3] = ["adapter", "first", "second"];

impl Tuner<'_> {
    /// Writes a checkpoint, replacing the one that was there in one move.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let parts = [&self.adapter.tensors, &self.optimizer.first, &self.optimizer.second];
        let mut all = Named::new();
        for (part, tensors) in PARTS.iter().zip(parts) {
            all.extend(tensors.iter().map(|(name, tensor)| (format!("{part}/{name}"), tensor.clone())));
        }
        // Exact in f32: steps are far below 2^24.
        all.insert(STEP.to_owned(), HostTensor { shape: vec![1], data: vec![self.done as f32] });
        let beside = path.with_extension("part");
        fs::write(&beside, safetensors::write(&all)?).map_err(ModelError::io(&beside))?;
        fs::rename(&beside, path).map_err(ModelError::io(path))
    }

    /// Goes on from a checkpoint of the same tuning.
    ///
    /// # Errors
    /// [`ModelError::Format`] when the file is none or of another adapter; the tuning stays as it was.
    pub fn restore(&mut self, path: &Path) -> Result<(), ModelError> {
        let refused = |reason: &str| ModelError::Format {
            file: path.display().to_string(),
            reason: format!("{reason}; delete it to begin anew"),
        };
        let mut all = safetensors::read(path)?.0;
        let step = all.remove(STEP).and_then(|tensor| tensor.data.first().copied());
        let step = step.ok_or_else(|| refused("not a checkpoint of a tuning"))?;
        let mut parts = PARTS.map(|part| {
            let prefix = format!("{part}/");
            let of_part = |(name, tensor): (&String, &HostTensor)| {
                name.strip_prefix(&prefix).map(|name| (name.to_owned(), tensor.clone()))
            };
            all.iter().filter_map(of_part).collect::<Named>()
        });
        let shapes = |named: &Named| -> Vec<_> {
            named.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
        };
        let wanted = shapes(&self.adapter.tensors);
        let moved = step > 0.0;
        if shapes(&parts[0]) != wanted || (moved && parts[1..].iter().any(|part| shapes(part) != wanted)) {
            return Err(refused("the checkpoint is of an adapter of another shape"));
        }
        let [adapter, first, second] = &mut parts;
        self.adapter.tensors = std::mem::take(adapter);
        self.optimizer.first = std::mem::take(first);
        self.optimizer.second = std::mem::take(second);
        self.optimizer.steps = step as u64;
        self.done = step as usize;
        Ok(())
    }
}
