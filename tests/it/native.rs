//! The native shim: its kernels against plain tensor operations, and dropout against `random`.

use crate::golden::assert_close;
use scrimp::native::{
    Alone, GroupSum, Normalisation, NormalisedChannels, TrainingPass, normal, normalise,
    with_slice, with_slice_mut,
};
use scrimp::random::{Key, element_bits};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

fn wave(shape: &[i64], factor: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Double, Device::Cpu)) * factor).sin() * 2.0 + 0.7).view(shape)
}

fn channels(count: i64, kind: Kind) -> NormalisedChannels {
    NormalisedChannels {
        weight: (wave(&[count], 0.3) + 1.0).to_kind(kind).set_requires_grad(true),
        bias: wave(&[count], 0.9).to_kind(kind).set_requires_grad(true),
        running_mean: Tensor::zeros([count], (kind, Device::Cpu)),
        running_var: Tensor::ones([count], (kind, Device::Cpu)),
    }
}

const SETTINGS: Normalisation =
    Normalisation { momentum: 0.1, epsilon: 1e-5, slope: 0.01, dropout: 0.3, portable: false };

/// Output, gradients of input, weight and bias, and running statistics after one pass over an input
/// of numbers that `kind` and `stored` both have, with parameters of kind `stored`.
fn one_pass((kind, stored): (Kind, Kind), portable: bool) -> Vec<Tensor> {
    let x = wave(&[3, 5, 7, 6], 0.37).to_kind(Kind::BFloat16).to_kind(kind).set_requires_grad(true);
    let channels = channels(5, stored);
    let keys: Vec<i64> = (0..3).map(|sample| Key::new(4).number(sample).bits() as i64).collect();
    let keys = Tensor::from_slice(&keys);
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    let pass = TrainingPass { group: &group, keys: Some(&keys) };
    let y = normalise(&x, &channels, Normalisation { portable, ..SETTINGS }, &pass).unwrap();
    (&y * wave(&[3, 5, 7, 6], 0.11).to_kind(kind)).sum(kind).backward();
    let gradients = [x.grad(), channels.weight.grad(), channels.bias.grad()];
    let statistics = [channels.running_mean, channels.running_var];
    std::iter::once(y.detach()).chain(gradients).chain(statistics).collect()
}

#[test]
fn kernels_and_tensor_operations_agree() {
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::Double, 1e-13)] {
        let [kernels, portable] = [false, true].map(|portable| one_pass((kind, kind), portable));
        for (kernels, portable) in kernels.iter().zip(&portable) {
            assert_close("kernel", kernels, portable, tolerance);
        }
    }
}

#[test]
fn features_in_bf16_are_rounded_and_nothing_else_is() {
    let exact = one_pass((Kind::Float, Kind::Float), false);
    for portable in [false, true] {
        let rounded = one_pass((Kind::BFloat16, Kind::Float), portable);
        for (number, (rounded, exact)) in rounded.iter().zip(&exact).enumerate() {
            let is_feature = number < 2;
            assert_eq!(rounded.kind() == Kind::BFloat16, is_feature);
            // Half a unit in the last of eight bits, once in the gradient that comes in and once in the
            // one that goes out; running statistics see the input alone.
            let tolerance = if number < 4 { 0.008 } else { 1e-6 };
            assert_close("bf16", rounded, exact, tolerance);
        }
    }
}

#[test]
fn normal_numbers_are_those_of_their_key_alone_and_spread_as_they_should() {
    let like = Tensor::zeros([0, 1, 64, 65], (Kind::Float, Device::Cpu));
    let keys = [1, 2, 3].map(|seed| Key::new(seed).bits());
    let all = normal(&keys, &like, false).unwrap();
    assert_eq!(all.size(), [3, 1, 64, 65]);
    assert!(normal(&keys[2..], &like, false).unwrap() == all.narrow(0, 2, 1));
    assert_close("normal", &all, &normal(&keys, &like, true).unwrap(), 1e-5);
    let (mean, deviation) = (all.mean(Kind::Double), all.std(true));
    assert!(
        mean.double_value(&[]).abs() < 0.03 && (deviation.double_value(&[]) - 1.0).abs() < 0.03
    );
    let beyond = all.abs().gt(2.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    assert!((beyond - 0.0455).abs() < 0.01, "{beyond}");
    let neighbours = (all.narrow(3, 0, 64) * all.narrow(3, 1, 64)).mean(Kind::Double);
    assert!(neighbours.double_value(&[]).abs() < 0.03);
    let odd = Tensor::zeros([1, 1, 3, 3], (Kind::Double, Device::Cpu));
    let [kernels, portable] = [false, true].map(|portable| normal(&keys, &odd, portable).unwrap());
    assert_close("normal", &kernels, &portable, 1e-12);
}

#[test]
fn without_dropout_it_is_batch_norm_and_leaky_relu() {
    let x = wave(&[4, 6, 5, 9], 0.21).set_requires_grad(true);
    let theirs = x.detach().copy().set_requires_grad(true);
    let channels = channels(6, Kind::Double);
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    let pass = TrainingPass { group: &group, keys: None };
    let y = normalise(&x, &channels, SETTINGS, &pass).unwrap();
    let (mean, var) = (
        Tensor::zeros([6], (Kind::Double, Device::Cpu)),
        Tensor::ones([6], (Kind::Double, Device::Cpu)),
    );
    let (weight, bias) = (channels.weight.detach(), channels.bias.detach());
    let z = theirs.batch_norm(
        Some(weight),
        Some(bias),
        Some(mean.shallow_clone()),
        Some(var.shallow_clone()),
        true,
        0.1,
        1e-5,
        false,
    );
    let z = z.where_self(&z.gt(0.0), &(&z * 0.01));
    assert_close("output", &y.detach(), &z.detach(), 1e-13);
    assert_close("running mean", &channels.running_mean, &mean, 1e-13);
    assert_close("running variance", &channels.running_var, &var, 1e-13);
    let upstream = wave(&[4, 6, 5, 9], 0.13);
    (y * &upstream).sum(Kind::Double).backward();
    (z * &upstream).sum(Kind::Double).backward();
    assert_close("gradient", &x.grad(), &theirs.grad(), 1e-11);
}

#[test]
fn dropped_elements_are_those_of_the_counter_generator() {
    let x = Tensor::ones([2, 3, 4, 5], (Kind::Float, Device::Cpu))
        + wave(&[2, 3, 4, 5], 0.2).to_kind(Kind::Float);
    let keys: Vec<Key> = (0..2).map(|sample| Key::new(8).number(sample)).collect();
    let bits: Vec<i64> = keys.iter().map(|key| key.bits() as i64).collect();
    let bits = Tensor::from_slice(&bits);
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    let pass = TrainingPass { group: &group, keys: Some(&bits) };
    let y = normalise(&x, &channels(3, Kind::Float), SETTINGS, &pass).unwrap();
    let threshold = (0.3 * 4_294_967_296.0f64).round() as u32;
    for (n, key) in keys.iter().enumerate() {
        for (h, w, c) in
            (0..4).flat_map(|h| (0..5).flat_map(move |w| (0..3).map(move |c| (h, w, c))))
        {
            let kept = element_bits(*key, (h * 5 + w) * 3 + c) >= threshold;
            let value = y.double_value(&[n as i64, i64::from(c), i64::from(h), i64::from(w)]);
            assert_eq!(value != 0.0, kept, "sample {n}, row {h}, column {w}, channel {c}");
        }
    }
}

#[test]
fn an_empty_local_batch_normalises_to_an_empty_one() {
    struct Others;
    impl GroupSum for Others {
        fn ranks(&self) -> usize {
            2
        }
        fn sum(&self, tensor: &Tensor) {
            let mut tensor = tensor.shallow_clone();
            let _ = tensor.g_add_scalar_(1.0);
        }
    }
    let x = Tensor::zeros([0, 3, 4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let group: Arc<dyn GroupSum> = Arc::new(Others);
    let channels = channels(3, Kind::Float);
    let y =
        normalise(&x, &channels, SETTINGS, &TrainingPass { group: &group, keys: None }).unwrap();
    assert_eq!(y.size(), [0, 3, 4, 4]);
    y.sum(Kind::Float).backward();
    assert_eq!(channels.weight.grad().abs().max().double_value(&[]), 0.0);
}

#[test]
fn a_rank_that_normalises_alone_may_be_without_samples() {
    let x = Tensor::zeros([0, 3, 4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    let channels = channels(3, Kind::Float);
    let y =
        normalise(&x, &channels, SETTINGS, &TrainingPass { group: &group, keys: None }).unwrap();
    y.sum(Kind::Float).backward();
    assert_eq!(channels.weight.grad().abs().max().double_value(&[]), 0.0);
    assert!(channels.running_var.equal(&channels.running_var.ones_like()));
}

#[test]
fn memory_is_lent_only_as_what_it_is() {
    let tensor = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).view([2, 2]);
    with_slice_mut(&tensor, |values: &mut [f32]| values[3] = 7.0).unwrap();
    assert_eq!(
        with_slice(&tensor, |values: &[f32]| values.to_vec()).unwrap(),
        [1.0, 2.0, 3.0, 7.0]
    );
    assert!(with_slice(&tensor, |_: &[f64]| ()).is_err());
    assert!(with_slice(&tensor.tr(), |_: &[f32]| ()).is_err());
    let empty = Tensor::zeros([0], (Kind::Int64, Device::Cpu));
    assert_eq!(with_slice(&empty, <[i64]>::len).unwrap(), 0);
}
