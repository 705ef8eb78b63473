//! Calls into `discriminator.cpp`: leaky rectification, and weights over their largest singular values.
#![expect(unsafe_code, reason = "this file is the foreign-function border to libtorch")]

use super::Form;
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
        form: Form,
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
    form: Form,
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
            form,
        )
    })?;
    Ok(out.into_iter().map(adopted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const CPU: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// Numbers in [-1, 1] without a pattern, always the same.
    fn numbers(shape: &[i64]) -> Tensor {
        let count = shape.iter().product::<i64>();
        (Tensor::arange(count, CPU).square() * 0.7 + count).sin().view(shape)
    }

    /// Weights of a discriminator with their vectors, always the same.
    fn weights(channels_last: bool) -> [Vec<Tensor>; 3] {
        let shapes: [&[i64]; 4] = [&[6, 3, 4, 4], &[5, 6, 2, 2], &[1, 10], &[3, 1, 1, 1]];
        let raw = shapes.map(|shape| {
            let weight = numbers(shape);
            let is_image = channels_last && shape.len() == 4;
            let weight =
                if is_image { super::super::channels_last(&weight).unwrap() } else { weight };
            weight.detach().set_requires_grad(true)
        });
        let unit = |count: i64| {
            let vector = numbers(&[count]);
            &vector / vector.norm()
        };
        let lefts = shapes.map(|shape| unit(shape[0])).into();
        let rights = shapes.map(|shape| unit(shape[1..].iter().product())).into();
        [raw.into(), lefts, rights]
    }

    /// What three passes and their backward give: divided weights, vectors and gradients.
    fn passes(channels_last: bool, form: Form) -> Vec<Tensor> {
        let [raw, lefts, rights] = weights(channels_last);
        let mut found = Vec::new();
        for iterates in [true, true, false] {
            let all = raw.iter().zip(lefts.iter().zip(&rights));
            let all: Vec<_> =
                all.map(|(weight, (left, right))| SpectralWeight { weight, left, right }).collect();
            let divided = divide_by_singular_values(&all, iterates, form).unwrap();
            let loss: Tensor =
                divided.iter().map(|w| (w.square() * w.cos()).sum(Kind::Double)).sum();
            found.extend(Tensor::run_backward(&[loss], &raw, false, false));
            found.extend(divided);
        }
        found.extend(lefts);
        found.extend(rights);
        found
    }

    #[test]
    fn kernels_divide_weights_and_pull_gradients_back_as_tensor_operations_do() {
        for channels_last in [false, true] {
            let plain = passes(channels_last, Form::Plain);
            let twin = passes(channels_last, Form::DeviceTwin);
            assert_eq!(plain.len(), 32);
            for (number, (plain, twin)) in plain.iter().zip(&twin).enumerate() {
                assert!(plain.allclose(twin, 1e-10, 1e-10, false), "{number}: {plain} {twin}");
            }
        }
    }

    #[test]
    fn the_gradient_is_that_of_its_definition() {
        let [raw, lefts, rights] = weights(true);
        let of = SpectralWeight { weight: &raw[0], left: &lefts[0], right: &rights[0] };
        let divided = divide_by_singular_values(&[of], false, Form::Own).unwrap().remove(0);
        let value = lefts[0].dot(&raw[0].flatten(1, -1).mv(&rights[0]));
        let expected = &raw[0] / value;
        let gradient = |of: &Tensor| {
            let loss = (of.square() * of.cos()).sum(Kind::Double);
            Tensor::run_backward(&[loss], &[&raw[0]], false, false).remove(0)
        };
        assert!(divided.allclose(&expected, 1e-12, 1e-12, false));
        assert!(gradient(&divided).allclose(&gradient(&expected), 1e-10, 1e-10, false));
    }

    #[test]
    fn vectors_of_another_weight_are_refused() {
        let [raw, lefts, rights] = weights(false);
        let of = SpectralWeight { weight: &raw[0], left: &lefts[1], right: &rights[0] };
        let failure = divide_by_singular_values(&[of], false, Form::Own).unwrap_err();
        assert_eq!(
            failure.message(),
            "a weight of shape [6, 3, 4, 4] has singular vectors of [5, 48] elements"
        );
    }
}
