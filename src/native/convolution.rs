//! Calls into `convolution.cpp`: convolutions over volumes outside of training.
#![expect(unsafe_code, reason = "this file is the foreign-function border to libtorch")]

use super::ffi::{Handle, adopted, checked, handle};
use crate::error::Result;
use std::ffi::c_char;
use tch::Tensor;

unsafe extern "C" {
    fn scrimp_convolve_volumes(
        out: *mut Handle,
        x: Handle,
        weight: Handle,
        bias: Handle,
        slope: f64,
    ) -> *mut c_char;
}

/// Leaky rectification with a slope, 1 for none, of the convolution of volumes `[N, C, D, H, W]` with a weight
/// `[outputs, C, taps, taps, taps]` of odd numbers of taps, all of one kind and on one device. The result has the
/// extents of the volumes; no gradient is recorded.
///
/// f32 on the CPU goes through oneDNN, which rectifies what it has just added up: one pass over memory, in an
/// order that the number of threads has no part in.
pub fn convolve_volumes(x: &Tensor, weight: &Tensor, bias: &Tensor, slope: f64) -> Result<Tensor> {
    let mut out: Handle = std::ptr::null_mut();
    // SAFETY: all handles belong to tensors borrowed for this call.
    checked(unsafe {
        scrimp_convolve_volumes(&raw mut out, handle(x), handle(weight), handle(bias), slope)
    })?;
    Ok(adopted(out))
}
