//! The native shim: its kernels against plain tensor operations, and dropout against `random`.

use crate::golden::assert_close;
use crate::skips::{gpu_is_there, skipped};
use scrimp::native::cuda;
use scrimp::native::{
    Alone, Form, GroupSum, Normalisation, NormalisedChannels, Order, TrainingPass, arrange_twin,
    channels_last, normal, normalise, normalise_evaluate, with_slice, with_slice_mut,
};
use scrimp::random::{Key, element_bits};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

fn wave(shape: &[i64], factor: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Double, Device::Cpu)) * factor).sin() * 2.0 + 0.7).view(shape)
}

fn channels_on(device: Device, count: i64, kind: Kind) -> NormalisedChannels {
    let place = |values: Tensor| values.to_kind(kind).to_device(device);
    NormalisedChannels {
        weight: place(wave(&[count], 0.3) + 1.0).set_requires_grad(true),
        bias: place(wave(&[count], 0.9)).set_requires_grad(true),
        absorbed: place(wave(&[count], 0.7)).set_requires_grad(true),
        running_mean: Tensor::zeros([count], (kind, device)),
        running_var: Tensor::ones([count], (kind, device)),
    }
}

fn channels(count: i64, kind: Kind) -> NormalisedChannels {
    channels_on(Device::Cpu, count, kind)
}

const SETTINGS: Normalisation =
    Normalisation { momentum: 0.1, epsilon: 1e-5, slope: 0.01, dropout: 0.3, form: Form::Own };

fn with_form(form: Form) -> Normalisation {
    Normalisation { form, ..SETTINGS }
}

/// `[N, C, H, W]`: an odd number of elements; channels that fill packs of 16 bytes in each kind; more
/// packs than the kernels for devices have threads on the host; pixels smaller than a step of all threads.
/// `[N, C, D, H, W]`: the same in volumes, and extents of 1.
const SHAPES: [&[i64]; 9] = [
    &[3, 5, 7, 6],
    &[2, 16, 9, 5],
    &[2, 6, 90, 41],
    &[5, 1, 3, 3],
    &[3, 24, 1, 1],
    &[3, 5, 3, 7, 3],
    &[2, 16, 4, 3, 5],
    &[5, 1, 3, 1, 4],
    &[2, 8, 1, 5, 1],
];

/// One pass over numbers that all kinds have, with features of kind `features` and parameters of kind
/// `parameters`.
struct OnePass {
    shape: &'static [i64],
    features: Kind,
    parameters: Kind,
    dropout: bool,
    form: Form,
    device: Device,
}

impl OnePass {
    fn keys(&self) -> Tensor {
        let keys = (0..self.shape[0] as u64).map(|sample| Key::new(4).number(sample).bits() as i64);
        Tensor::from_slice(&keys.collect::<Vec<_>>())
    }

    /// Output, gradients of input, weight and bias, running statistics, the output of evaluation, and the
    /// number of batches.
    fn results(&self) -> Vec<Tensor> {
        self.results_among(&(Arc::new(Alone) as Arc<dyn GroupSum>))
    }

    fn results_among(&self, group: &Arc<dyn GroupSum>) -> Vec<Tensor> {
        let features = |factor| {
            let numbers = wave(self.shape, factor).to_kind(Kind::BFloat16);
            numbers.to_kind(self.features).to_device(self.device)
        };
        let x = features(0.37).set_requires_grad(true);
        let channels = channels_on(self.device, self.shape[1], self.parameters);
        let keys = self.dropout.then(|| self.keys());
        let batches = Tensor::full([], 6, (Kind::Int64, self.device));
        let pass = TrainingPass { group, keys: keys.as_ref(), batches: Some(&batches) };
        let settings = with_form(self.form);
        let y = normalise(&x, &channels, settings, &pass).unwrap();
        (&y * features(0.11)).sum(self.features).backward();
        let evaluated = normalise_evaluate(&x, &channels, settings).unwrap();
        let gradients = [x.grad(), channels.weight.grad(), channels.bias.grad()];
        let counted = batches.to_kind(Kind::Double);
        let rest = [channels.running_mean, channels.running_var, evaluated, counted];
        std::iter::once(y.detach()).chain(gradients).chain(rest).collect()
    }
}

fn compare(shape: &'static [i64], kind: Kind, tolerance: f64, ways: &[(Form, Device)]) {
    for dropout in [true, false] {
        let plain = OnePass {
            shape,
            features: kind,
            parameters: kind,
            dropout,
            form: Form::Plain,
            device: Device::Cpu,
        };
        let expected = plain.results();
        for &(form, device) in ways {
            let results = OnePass { form, device, ..plain }.results();
            for (number, (found, expected)) in results.iter().zip(&expected).enumerate() {
                let what = format!("{form:?} on {device:?}, {kind:?} {shape:?}, result {number}");
                assert_close(&what, &found.to_device(Device::Cpu), expected, tolerance);
            }
        }
    }
}

#[test]
fn all_forms_of_normalisation_agree() {
    let ways = [(Form::Own, Device::Cpu), (Form::DeviceTwin, Device::Cpu)];
    for shape in SHAPES {
        compare(shape, Kind::Float, 1e-5, &ways);
        compare(shape, Kind::Double, 1e-13, &ways);
    }
}

/// This rank and one with the same samples.
struct Twice;

impl GroupSum for Twice {
    fn ranks(&self) -> usize {
        2
    }
    fn sum(&self, tensor: &Tensor) {
        let _ = tensor.shallow_clone().g_mul_scalar_(2.0);
    }
}

/// What a grid of blocks is cut along: fewer pixels than rows of threads, one pixel, none; channels that
/// fill no pack, many groups, or groups of which the last is narrow; more blocks than one multiprocessor
/// holds.
const GRIDS: [&[i64]; 9] = [
    &[1, 520, 1, 2],
    &[1, 64, 1, 1],
    &[0, 16, 4, 4],
    &[3, 7, 11, 5],
    &[2, 1, 33, 40],
    &[2, 36, 13, 9],
    &[1, 136, 9, 7],
    &[2, 16, 53, 40],
    &[2, 20, 7, 3, 9],
];

#[test]
fn sums_on_devices_do_not_depend_on_which_block_or_thread_comes_first() {
    let orders = [Order::Forward, Order::Reversed, Order::Shuffled(3)];
    let groups: [Arc<dyn GroupSum>; 2] = [Arc::new(Alone), Arc::new(Twice)];
    let kinds = [(Kind::Float, 1e-5), (Kind::Double, 1e-12), (Kind::BFloat16, 0.008)];
    for (number, shape) in GRIDS.into_iter().enumerate() {
        for ((features, tolerance), group) in
            kinds.iter().flat_map(|kind| groups.iter().map(move |group| (*kind, group)))
        {
            let parameters = if features == Kind::Double { features } else { Kind::Float };
            let (dropout, form, device) = (number % 2 == 0, Form::DeviceTwin, Device::Cpu);
            let twin = OnePass { shape, features, parameters, dropout, form, device };
            let plain = OnePass { form: Form::Plain, ..twin }.results_among(group);
            for processors in [1, 132] {
                let all = orders.map(|order| {
                    arrange_twin(processors, order);
                    twin.results_among(group)
                });
                for (number, expected) in all[0].iter().enumerate() {
                    let what = format!("{features:?} {shape:?}, {processors}, result {number}");
                    let same = all.iter().all(|results| results[number].equal(expected));
                    assert!(same, "{what}: other bits in another order");
                    assert!(expected.isfinite().all().int64_value(&[]) == 1, "{what}");
                    // Where a channel has few values its gradient is a difference of nearly equal
                    // numbers, which only the plain form does not round to bf16 first.
                    let is_rounded_away = features == Kind::BFloat16
                        && shape[0] * shape[2..].iter().product::<i64>() < 9;
                    if expected.numel() > 0 && !is_rounded_away {
                        assert_close(&what, expected, &plain[number], tolerance);
                    }
                }
            }
        }
    }
    arrange_twin(1, Order::Forward);
}

#[test]
fn normalisation_on_a_gpu_agrees_with_the_cpu() {
    if !gpu_is_there() {
        return skipped("there is no GPU");
    }
    cuda::open(0, None).unwrap();
    let ways = [Form::Own, Form::Plain].map(|form| (form, Device::Cuda(0)));
    for shape in SHAPES {
        compare(shape, Kind::Float, 1e-5, &ways);
        compare(shape, Kind::Double, 1e-12, &ways);
    }
    let like = Tensor::zeros([0, 1, 9, 9], (Kind::Double, Device::Cuda(0)));
    let [own, plain] = [Form::Own, Form::Plain]
        .map(|form| normal(&Tensor::from_slice(&[1i64, 2]), &like, form).unwrap());
    assert_close("normal", &own, &plain, 1e-12);
}

#[test]
fn features_in_bf16_are_rounded_and_nothing_else_is() {
    let pass = |shape, features, form| {
        let (parameters, device) = (Kind::Float, Device::Cpu);
        OnePass { shape, features, parameters, dropout: true, form, device }.results()
    };
    for shape in SHAPES {
        let exact = pass(shape, Kind::Float, Form::Own);
        for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
            let rounded = pass(shape, Kind::BFloat16, form);
            for (number, (rounded, exact)) in rounded.iter().zip(&exact).enumerate() {
                let is_feature = number < 2 || number == 6;
                assert_eq!(rounded.kind() == Kind::BFloat16, is_feature);
                // Half a unit in the last of eight bits, once in the gradient that comes in and once in
                // the one that goes out; running statistics see the input alone.
                let tolerance = if (4..6).contains(&number) { 1e-6 } else { 0.008 };
                let what = format!("bf16 {form:?} {shape:?}, result {number}");
                assert_close(&what, rounded, exact, tolerance);
            }
        }
    }
}

#[test]
fn normal_numbers_are_those_of_their_key_alone_and_spread_as_they_should() {
    let like = Tensor::zeros([0, 1, 64, 65], (Kind::Float, Device::Cpu));
    let keys = [1, 2, 3].map(|seed| Key::new(seed).bits().cast_signed());
    let keys = Tensor::from_slice(&keys);
    let all = normal(&keys, &like, Form::Own).unwrap();
    assert_eq!(all.size(), [3, 1, 64, 65]);
    assert!(normal(&keys.narrow(0, 2, 1), &like, Form::Own).unwrap() == all.narrow(0, 2, 1));
    for form in [Form::Plain, Form::DeviceTwin] {
        assert_close("normal", &all, &normal(&keys, &like, form).unwrap(), 1e-5);
    }
    let halves = [Form::Own, Form::Plain, Form::DeviceTwin]
        .map(|form| normal(&keys, &like.to_kind(Kind::BFloat16), form).unwrap());
    for half in &halves {
        assert_eq!(half.kind(), Kind::BFloat16);
        assert_close("normal in bf16", half, &all, 0.004);
    }
    let (mean, deviation) = (all.mean(Kind::Double), all.std(true));
    assert!(
        mean.double_value(&[]).abs() < 0.03 && (deviation.double_value(&[]) - 1.0).abs() < 0.03
    );
    let beyond = all.abs().gt(2.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    assert!((beyond - 0.0455).abs() < 0.01, "{beyond}");
    let neighbours = (all.narrow(3, 0, 64) * all.narrow(3, 1, 64)).mean(Kind::Double);
    assert!(neighbours.double_value(&[]).abs() < 0.03);
    let odd = Tensor::zeros([1, 1, 3, 3], (Kind::Double, Device::Cpu));
    let [own, plain, twin] =
        [Form::Own, Form::Plain, Form::DeviceTwin].map(|form| normal(&keys, &odd, form).unwrap());
    assert_close("normal", &own, &plain, 1e-12);
    assert_close("normal", &twin, &plain, 1e-12);
}

#[test]
fn without_dropout_it_is_batch_norm_and_leaky_relu() {
    let x = wave(&[4, 6, 5, 9], 0.21).set_requires_grad(true);
    let theirs = x.detach().copy().set_requires_grad(true);
    let channels = channels(6, Kind::Double);
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    let pass = TrainingPass { group: &group, keys: None, batches: None };
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
    let absorbed = channels.absorbed.detach() * 0.1;
    assert_close("running mean", &(&channels.running_mean - absorbed), &mean, 1e-13);
    assert_close("running variance", &channels.running_var, &var, 1e-13);
    let upstream = wave(&[4, 6, 5, 9], 0.13);
    (y * &upstream).sum(Kind::Double).backward();
    (z * &upstream).sum(Kind::Double).backward();
    assert_close("gradient", &x.grad(), &theirs.grad(), 1e-11);
}

#[test]
fn an_absorbed_bias_is_as_if_it_had_been_added() {
    let (x, upstream) = (wave(&[4, 6, 5, 9], 0.21), wave(&[4, 6, 5, 9], 0.13));
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    let pass = TrainingPass { group: &group, keys: None, batches: None };
    for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
        let results = |x: &Tensor, channels: &NormalisedChannels| {
            let x = x.detach().set_requires_grad(true);
            let y = normalise(&x, channels, with_form(form), &pass).unwrap();
            (&y * &upstream).sum(Kind::Double).backward();
            let evaluated = normalise_evaluate(&x, channels, with_form(form)).unwrap();
            let running = [&channels.running_mean, &channels.running_var].map(Tensor::copy);
            let gradients = [&x, &channels.weight, &channels.bias].map(Tensor::grad);
            [y.detach(), evaluated].into_iter().chain(running).chain(gradients).collect::<Vec<_>>()
        };
        let absorbing = channels(6, Kind::Double);
        let found = results(&x, &absorbing);
        assert!(!absorbing.absorbed.grad().defined(), "a gradient reached what is absorbed");
        let zero = absorbing.absorbed.zeros_like();
        let added = &x + absorbing.absorbed.detach().view([1, 6, 1, 1]);
        let expected =
            results(&added, &NormalisedChannels { absorbed: zero, ..channels(6, Kind::Double) });
        for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_close(&format!("{form:?}, result {number}"), found, expected, 1e-12);
        }
    }
}

#[test]
fn dropped_elements_are_those_of_the_counter_generator() {
    let x = Tensor::ones([2, 3, 4, 5], (Kind::Float, Device::Cpu))
        + wave(&[2, 3, 4, 5], 0.2).to_kind(Kind::Float);
    let keys: Vec<Key> = (0..2).map(|sample| Key::new(8).number(sample)).collect();
    let bits: Vec<i64> = keys.iter().map(|key| key.bits() as i64).collect();
    let bits = Tensor::from_slice(&bits);
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    let pass = TrainingPass { group: &group, keys: Some(&bits), batches: None };
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
fn a_volume_is_normalised_as_an_image_of_all_its_rows() {
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    let keys = Tensor::from_slice(&[7i64, 8]);
    let volume = wave(&[2, 6, 3, 4, 5], 0.37).to_kind(Kind::Float);
    let upstream = wave(&[2, 6, 3, 4, 5], 0.11).to_kind(Kind::Float);
    for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
        let results = |fold: fn(&Tensor) -> Tensor| {
            let x = volume.copy().set_requires_grad(true);
            let channels = channels(6, Kind::Float);
            let pass = TrainingPass { group: &group, keys: Some(&keys), batches: None };
            let y = normalise(&fold(&x), &channels, with_form(form), &pass).unwrap();
            (&y * fold(&upstream)).sum(Kind::Float).backward();
            let evaluated = normalise_evaluate(&fold(&x), &channels, with_form(form)).unwrap();
            [y.detach(), evaluated, x.grad(), channels.weight.grad(), channels.running_mean]
        };
        let as_volume = results(Tensor::shallow_clone);
        let as_image = results(|maps| maps.flatten(2, 3));
        assert_eq!(as_volume[0].size(), [2, 6, 3, 4, 5]);
        // In the memory order in which convolutions of volumes want them.
        assert_eq!(as_volume[0].stride(), [360, 1, 120, 30, 6]);
        for (found, expected) in as_volume.iter().zip(&as_image) {
            assert!(found.reshape_as(expected).equal(expected), "{form:?}");
        }
    }
    let lines = channels_last(&wave(&[2, 1, 3, 4, 5], 0.2)).unwrap();
    assert_eq!(lines.stride(), [60, 1, 20, 5, 1]);
    let flat = Tensor::zeros([2, 6, 3], (Kind::Float, Device::Cpu));
    let pass = TrainingPass { group: &group, keys: None, batches: None };
    assert!(normalise(&flat, &channels(6, Kind::Float), SETTINGS, &pass).is_err());
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
    let group: Arc<dyn GroupSum> = Arc::new(Others);
    for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
        let x = Tensor::zeros([0, 3, 4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let channels = channels(3, Kind::Float);
        let (pass, settings) =
            (TrainingPass { group: &group, keys: None, batches: None }, with_form(form));
        let y = normalise(&x, &channels, settings, &pass).unwrap();
        assert_eq!(y.size(), [0, 3, 4, 4]);
        y.sum(Kind::Float).backward();
        assert_eq!(channels.weight.grad().abs().max().double_value(&[]), 0.0);
    }
}

#[test]
fn a_rank_that_normalises_alone_may_be_without_samples() {
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
        let x = Tensor::zeros([0, 3, 4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let channels = channels(3, Kind::Float);
        let (pass, settings) =
            (TrainingPass { group: &group, keys: None, batches: None }, with_form(form));
        let y = normalise(&x, &channels, settings, &pass).unwrap();
        y.sum(Kind::Float).backward();
        assert_eq!(channels.weight.grad().abs().max().double_value(&[]), 0.0);
        assert!(channels.running_var.equal(&channels.running_var.ones_like()));
    }
}

#[test]
fn what_is_not_a_number_stays_that_in_every_form() {
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = wave(&[2, 8, 4, 4], 0.2).to_kind(kind);
            let _ = x.select(1, 3).fill_(f64::NAN);
            let pass = TrainingPass { group: &group, keys: None, batches: None };
            let y = normalise(&x, &channels(8, Kind::Float), with_form(form), &pass).unwrap();
            let lost =
                y.isnan().to_kind(Kind::Int64).sum_dim_intlist([0, 2, 3].as_slice(), false, None);
            assert_eq!(Vec::<i64>::try_from(lost).unwrap(), [0, 0, 0, 32, 0, 0, 0, 0]);
        }
    }
}

#[test]
fn dropout_wants_one_key_for_every_sample() {
    let group: Arc<dyn GroupSum> = Arc::new(Alone);
    let x = wave(&[2, 3, 4, 4], 0.2).to_kind(Kind::Float);
    let keys = Tensor::from_slice(&[1i64]);
    let pass = TrainingPass { group: &group, keys: Some(&keys), batches: None };
    assert!(normalise(&x, &channels(3, Kind::Float), SETTINGS, &pass).is_err());
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
