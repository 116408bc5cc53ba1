//! Parameters on the wire: a safetensors file of f32 tensors; an exact update carries its rows and loss in the header.

use std::collections::{BTreeMap, HashMap};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// One header field, since the order of several is not fixed.
const UPDATE: &str = "update";

/// Values by name.
pub type Parameters = BTreeMap<String, Tensor>;

/// Values with their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, the last one runs fastest.
    pub shape: Vec<usize>,
    /// Values, as many as the shape says.
    pub data: Vec<f32>,
}

/// Parameters after a site's training.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The site's parameters.
    pub parameters: Parameters,
    /// What the site tells of its records beside them; nothing after training with noise.
    pub measured: Option<Measured>,
}

/// Exact figures about a site's training records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Training rows: the weight in the average.
    pub rows: u64,
    /// Mean training loss of the last pass, before each step.
    pub loss: f64,
}

/// A file that is no parameters.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Not safetensors.
    #[error("the parameters are not a readable safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor that cannot be used.
    #[error("tensor {name}: {reason}")]
    Tensor {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// Rows or loss are missing or make no sense.
    #[error("the update's {0}")]
    Header(String),
}

impl Update {
    /// The bytes as they are sent.
    pub fn encode(&self) -> Result<Vec<u8>, UpdateError> {
        let text = |measured: Measured| format!("{} rows, loss {}", measured.rows, measured.loss);
        let header = self.measured.map(|measured| HashMap::from([(UPDATE.to_owned(), text(measured))]));
        write(&self.parameters, header)
    }

    /// Reads and checks what [`Update::encode`] wrote: f32 tensors of finite values; where there are figures, at least one
    /// row and a finite loss.
    pub fn decode(bytes: &[u8]) -> Result<Self, UpdateError> {
        let header = |what: &str| UpdateError::Header(what.to_owned());
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let text = metadata.metadata().as_ref().and_then(|fields| fields.get(UPDATE));
        let measured = |text: &String| {
            let (rows, loss) =
                text.split_once(" rows, loss ").ok_or_else(|| header("header is not rows and loss"))?;
            let rows = rows.parse().ok().filter(|rows| *rows > 0);
            let loss = loss.parse().ok().filter(|loss: &f64| loss.is_finite());
            Ok::<_, UpdateError>(Measured {
                rows: rows.ok_or_else(|| header("row count must be a whole number of at least 1"))?,
                loss: loss.ok_or_else(|| header("loss must be a finite number"))?,
            })
        };
        Ok(Self { measured: text.map(measured).transpose()?, parameters: read(bytes)? })
    }
}

/// Writes parameters alone.
fn write(parameters: &Parameters, header: Option<HashMap<String, String>>) -> Result<Vec<u8>, UpdateError> {
    let bytes: Vec<(&String, Vec<u8>)> = parameters
        .iter()
        .map(|(name, tensor)| (name, tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let mut views = Vec::with_capacity(bytes.len());
    for ((name, bytes), tensor) in bytes.iter().zip(parameters.values()) {
        views.push((name.as_str(), TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?));
    }
    Ok(safetensors::serialize(views, header)?)
}

/// Reads parameters: f32 tensors of finite values.
fn read(bytes: &[u8]) -> Result<Parameters, UpdateError> {
    let mut parameters = Parameters::new();
    for (name, view) in SafeTensors::deserialize(bytes)?.iter() {
        let refuse = |reason: String| UpdateError::Tensor { name: name.to_owned(), reason };
        if view.dtype() != Dtype::F32 {
            return Err(refuse(format!("is {:?}, expected F32", view.dtype())));
        }
        let (words, _) = view.data().as_chunks::<4>();
        let data: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        if let Some(at) = data.iter().position(|value| !value.is_finite()) {
            return Err(refuse(format!("value {at} is {}; training has diverged", data[at])));
        }
        parameters.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), data });
    }
    Ok(parameters)
}

/// Parameters without rows and loss: what the coordinator hands out.
pub trait ParametersFile: Sized {
    /// The bytes of the file.
    fn encode(&self) -> Result<Vec<u8>, UpdateError>;
    /// Reads and checks a file.
    fn decode(bytes: &[u8]) -> Result<Self, UpdateError>;
}

impl ParametersFile for Parameters {
    fn encode(&self) -> Result<Vec<u8>, UpdateError> {
        write(self, None)
    }

    fn decode(bytes: &[u8]) -> Result<Self, UpdateError> {
        read(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update() -> Update {
        let tensor = Tensor { shape: vec![2, 2], data: vec![1.0, -2.5, 0.0, 1e-20] };
        let measured = Some(Measured { rows: 12, loss: 0.25 });
        Update { parameters: [("weight".to_owned(), tensor)].into(), measured }
    }

    #[test]
    fn an_update_reads_back_and_its_bytes_are_fixed() {
        let bytes = update().encode().unwrap();
        assert_eq!(Update::decode(&bytes).unwrap(), update());
        assert_eq!(Parameters::decode(&bytes).unwrap(), update().parameters);
        let plain = ParametersFile::encode(&update().parameters).unwrap();
        assert_eq!(plain, ParametersFile::encode(&update().parameters).unwrap());
        let unmeasured = Update { measured: None, ..update() };
        assert_eq!(Update::decode(&plain).unwrap(), unmeasured);
        assert_eq!(unmeasured.encode().unwrap(), plain);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let bytes = update().encode().unwrap();
        for end in 0..bytes.len() {
            assert!(Update::decode(&bytes[..end]).is_err());
        }
        let changed = |change: &dyn Fn(&mut Update)| {
            let mut update = update();
            change(&mut update);
            Update::decode(&update.encode().unwrap()).unwrap_err().to_string()
        };
        assert!(changed(&|u| u.measured.as_mut().unwrap().rows = 0).contains("row count"));
        assert!(changed(&|u| u.measured.as_mut().unwrap().loss = f64::NAN).contains("loss"));
        for bad in [f32::NAN, f32::INFINITY] {
            let error = changed(&|u| u.parameters.get_mut("weight").unwrap().data[3] = bad);
            assert!(error.contains("weight") && error.contains("value 3"), "{error}");
        }
    }
}
