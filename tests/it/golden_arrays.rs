//! Reads golden files as plain numbers; what they mean stands in the tests that use them.

use safetensors::{Dtype, SafeTensors};
use std::path::PathBuf;

/// One golden file.
pub(crate) struct Arrays {
    bytes: Vec<u8>,
}

impl Arrays {
    /// Reads `NAME.safetensors` from `SCRIMP_GOLDEN_DIR`, by default `tests/golden`.
    pub(crate) fn open(name: &str) -> Self {
        let folder = std::env::var_os("SCRIMP_GOLDEN_DIR").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")),
            PathBuf::from,
        );
        let file = folder.join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&file)
            .unwrap_or_else(|error| panic!("golden file `{}`: {error}", file.display()));
        Self { bytes }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(key).is_ok()
    }

    /// Shape and values of an array.
    pub(crate) fn get(&self, key: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(key).unwrap_or_else(|error| panic!("`{key}`: {error}"));
        let bytes = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F32 => numbers(bytes, |b| f64::from(f32::from_le_bytes(b))),
            Dtype::F64 => numbers(bytes, f64::from_le_bytes),
            Dtype::I16 => numbers(bytes, |b| f64::from(i16::from_le_bytes(b))),
            Dtype::I32 => numbers(bytes, |b| f64::from(i32::from_le_bytes(b))),
            Dtype::I64 => numbers(bytes, |b| i64::from_le_bytes(b) as f64),
            Dtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
            other => panic!("`{key}` is {other:?}"),
        };
        (tensor.shape().to_vec(), values)
    }

    /// The values of an array as bytes.
    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        self.get(key).1.into_iter().map(|value| value as u8).collect()
    }
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.chunks_exact(N).map(|chunk| number(chunk.try_into().unwrap())).collect()
}
