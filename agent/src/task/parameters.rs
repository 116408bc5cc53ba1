//! Tensors as they are sent, and as models compute with them.

use sheaf_models::{train::optimizer::Named, weights::HostTensor};
use sheaf_proto::fedavg::{Parameters, Tensor};

/// As models compute with them.
pub fn named(parameters: Parameters) -> Named {
    let host = |(name, t): (String, Tensor)| (name, HostTensor { shape: t.shape, data: t.data });
    parameters.into_iter().map(host).collect()
}

/// As they are sent.
pub fn sent(named: Named) -> Parameters {
    let tensor = |(name, t): (String, HostTensor)| (name, Tensor { shape: t.shape, data: t.data });
    named.into_iter().map(tensor).collect()
}
