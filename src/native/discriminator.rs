//! Calls into `discriminator.cpp`: leaky rectification, and weights over their largest singular values.
#![expect(unsafe_code, reason = "this file is the foreign-function border to libtorch")]

use super::ffi::{adopted, checked, handle};
use crate::error::{Failure, Result};
use std::ffi::{c_char, c_void};
use tch::Tensor;

type Handle = *mut c_void;

unsafe extern "C" {
    fn scrimp_leaky_relu(out: *mut Handle, x: Handle, slope: f64) -> *mut c_char;
    fn scrimp_divide_by_singular_values(
        out: *mut Handle,
        weights: *const Handle,
        lefts: *const Handle,
        rights: *const Handle,
        count: i64,
        iterates: bool,
    ) -> *mut c_char;
}

/// Leaky rectification, `max(x, 0) + slope * min(x, 0)`, in the shape and kind of `x`.
pub fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor> {
    let mut out: Handle = std::ptr::null_mut();
    // SAFETY: the handle belongs to a tensor borrowed for this call.
    checked(unsafe { scrimp_leaky_relu(&raw mut out, handle(x), slope) })?;
    Ok(adopted(out))
}

/// A weight `[outputs, ...]` with the singular vectors of its matrix so far, each of length 1.
#[derive(Debug, Clone, Copy)]
pub struct SpectralWeight<'a> {
    /// Outputs first.
    pub weight: &'a Tensor,
    /// `[outputs]`.
    pub left: &'a Tensor,
    /// `[elements of one output]`.
    pub right: &'a Tensor,
}

/// Weights over their largest singular values `left . (weight right)`, after one step of the power iteration
/// with `iterates`, which moves the singular vectors. The gradient flows through both.
pub fn divide_by_singular_values(
    weights: &[SpectralWeight<'_>],
    iterates: bool,
) -> Result<Vec<Tensor>> {
    for SpectralWeight { weight, left, right } in weights {
        let shape = [left.numel(), right.numel()];
        if shape[0] != weight.size()[0] as usize || shape[0] * shape[1] != weight.numel() {
            return Err(Failure::new(format!(
                "a weight of shape {:?} has singular vectors of {shape:?} elements",
                weight.size()
            )));
        }
    }
    let handles = |tensor: fn(&SpectralWeight<'_>) -> Handle| -> Vec<Handle> {
        weights.iter().map(tensor).collect()
    };
    let raw = handles(|of| handle(of.weight));
    let lefts = handles(|of| handle(of.left));
    let rights = handles(|of| handle(of.right));
    let mut out: Vec<Handle> = vec![std::ptr::null_mut(); weights.len()];
    // SAFETY: all handles belong to tensors borrowed for this call, and each list has `weights.len()` of
    // them; the shim writes as many addresses where it succeeds.
    checked(unsafe {
        scrimp_divide_by_singular_values(
            out.as_mut_ptr(),
            raw.as_ptr(),
            lefts.as_ptr(),
            rights.as_ptr(),
            weights.len() as i64,
            iterates,
        )
    })?;
    Ok(out.into_iter().map(adopted).collect())
}
