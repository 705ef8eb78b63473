//! Calls into `propagation.cpp`: features that spread between neighbouring pixels which are alike.
#![expect(unsafe_code, reason = "this file is the foreign-function border to libtorch")]

use super::Form;
use super::ffi::{Handle, adopted, checked, handle};
use crate::error::Result;
use std::ffi::c_char;
use tch::Tensor;

unsafe extern "C" {
    fn scrimp_propagate(out: *mut Handle, features: Handle, form: Form) -> *mut c_char;
}

/// Features `[N, C, H, W]` as weighted means of those around, of the same shape and kind:
/// `Σ_n w_n F(p + o_n)` over the 25 pixels `o_n` of a 5 x 5 grid with 2 pixels from one to the next, `p` in the
/// middle, where `w = softmax_n(max(⟨F(p), F(p + o_n)⟩, 0))`. Outside of the image features are 0 and take part.
///
/// The gradient flows through the weights and through what they weigh. In f32 and f64 no more than the weights is kept
/// for it, `[N, H, W, 25]`, and results do not depend on the number of threads; other kinds are computed by tensor
/// operations. The result is channels-last.
///
/// Zhong et al., MICCAI 2024 (arXiv 2407.07406), as med-air/GazeMedSeg at 12d0259 computes it.
pub fn propagate(features: &Tensor, form: Form) -> Result<Tensor> {
    let mut out: Handle = std::ptr::null_mut();
    // SAFETY: the handle belongs to a tensor borrowed for this call.
    checked(unsafe { scrimp_propagate(&raw mut out, handle(features), form) })?;
    Ok(adopted(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    const FORMS: [Form; 3] = [Form::Own, Form::Plain, Form::DeviceTwin];

    /// Features without a pattern, always the same, of which neighbours are alike and some point away.
    fn features(shape: [i64; 4], kind: Kind) -> Tensor {
        let wave = |step: f64, count: i64| {
            (Tensor::arange(count, (Kind::Double, Device::Cpu)) * step + 0.3).sin()
        };
        let [samples, channels, height, width] = shape;
        let of_place = wave(0.9, height).view([-1, 1]) + wave(1.3, width) + 0.4;
        let of_channel = wave(2.1, samples * channels).view([samples, channels, 1, 1]);
        let noise = wave(37.7, shape.iter().product()).view(shape);
        (of_place * of_channel + noise * 0.5).to_kind(kind)
    }

    /// The result, and the gradient of a sum of it in which every element counts otherwise.
    fn passes(features: &Tensor, form: Form) -> [Tensor; 2] {
        let features = features.detach().set_requires_grad(true);
        let result = propagate(&features, form).unwrap();
        let factors = (Tensor::arange(result.numel() as i64, (result.kind(), Device::Cpu)) * 0.7)
            .cos()
            .view_as(&result);
        (&result * factors).sum(result.kind()).backward();
        [result.detach(), features.grad()]
    }

    #[test]
    fn loops_and_kernels_propagate_as_tensor_operations_do() {
        // Below, at and above what loops and kernels take at once, and images smaller than the grid.
        for shape in [[2, 6, 9, 8], [1, 1, 3, 11], [2, 16, 1, 1], [1, 35, 6, 5], [0, 4, 3, 3]] {
            for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 2e-5)] {
                let planar = features(shape, kind);
                let last = crate::native::channels_last(&planar).unwrap();
                let expected = passes(&planar, Form::Plain);
                for (features, form) in [&planar, &last].into_iter().zip(FORMS.repeat(2)) {
                    for (found, expected) in passes(features, form).iter().zip(&expected) {
                        let close = found.allclose(expected, tolerance, tolerance, false);
                        assert!(close, "{shape:?} {kind:?} {form:?}: {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_sum() {
        let at = features([2, 7, 8, 9], Kind::Double);
        let direction = features([2, 7, 8, 9], Kind::Double).cos();
        let sum = |features: &Tensor, form: Form| {
            let result = propagate(features, form).unwrap();
            let factors = Tensor::arange(result.numel() as i64, (Kind::Double, Device::Cpu)) * 0.7;
            (&result * factors.cos().view_as(&result)).sum(Kind::Double).double_value(&[])
        };
        for form in FORMS {
            let [_, gradient] = passes(&at, form);
            let step = 1e-5;
            let slope = (sum(&(&at + &direction * step), form)
                - sum(&(&at - &direction * step), form))
                / (2.0 * step);
            let along = (gradient * &direction).sum(Kind::Double).double_value(&[]);
            assert!(
                (along - slope).abs() < 1e-7 * slope.abs().max(1.0),
                "{form:?}: {along} {slope}"
            );
        }
    }

    #[test]
    fn numbers_of_threads_change_no_bit() {
        let features = features([3, 40, 17, 13], Kind::Float);
        let before = tch::get_num_threads();
        let [one, three] = [1, 3].map(|threads| {
            tch::set_num_threads(threads);
            passes(&features, Form::Own)
        });
        tch::set_num_threads(before);
        assert!(one.iter().zip(&three).all(|(one, three)| one.equal(three)));
    }

    #[test]
    fn what_is_not_a_number_stays_that_and_volumes_are_refused() {
        let features = features([1, 4, 12, 12], Kind::Float);
        let _ = features.get(0).get(1).get(3).get(4).fill_(f64::NAN);
        for form in FORMS {
            let found = propagate(&features, form).unwrap();
            assert!(found.get(0).get(0).get(5).get(6).isnan().int64_value(&[]) == 1, "{form:?}");
            assert!(found.get(0).get(0).get(9).get(10).isfinite().int64_value(&[]) == 1);
        }
        let refused = propagate(&features.unsqueeze(2), Form::Own).unwrap_err();
        assert!(refused.to_string().contains("expected features [N, C, H, W]"), "{refused}");
    }
}
