//! Flat tensors of gradients, weights and moments, worked on in a few passes over memory.
//!
//! Calls into `shim_flat.cpp`. Where there are no kernels for a tensor ([`serves`]) the caller has the same formulas
//! as tensor operations. Knows no slots and no ranks.
#![expect(unsafe_code, reason = "this file is the foreign-function border to shim_flat.cpp")]

use super::Form;
use super::ffi::{Handle, adopted, checked, handle};
use crate::error::{Failure, Result};
use std::ffi::c_char;
use tch::{Kind, Tensor};

type ErrorText = *mut c_char;

unsafe extern "C" {
    fn scrimp_flat_serves(flat: Handle, form: Form) -> bool;
    fn scrimp_flat_descend(of: *const DescentHandles, form: Form) -> ErrorText;
    fn scrimp_flat_follow(
        weights: Handle,
        leader: Handle,
        narrowed: Handle,
        keep: Handle,
        finite: Handle,
        form: Form,
    ) -> ErrorText;
    fn scrimp_flat_copy(
        to: *const Handle,
        from: *const Handle,
        count: i64,
        unless: Handle,
        form: Form,
    ) -> ErrorText;
    fn scrimp_flat_forget(leaves: *const Handle, count: i64) -> ErrorText;
    fn scrimp_flat_gather(
        flat: Handle,
        leaves: *const Handle,
        narrowed: *const Handle,
        starts: *const i64,
        count: i64,
        end: i64,
        adds: bool,
        form: Form,
    ) -> ErrorText;
    fn scrimp_flat_squares(
        out: *mut Handle,
        flat: Handle,
        ranks: i64,
        first: i64,
        count: i64,
        form: Form,
    ) -> ErrorText;
}

/// The tensors and constants of an update; mirrors `ScrimpDescent`.
#[repr(C)]
struct DescentHandles {
    tensors: [Handle; 10],
    constants: Constants,
}

/// The constants of an update.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Constants {
    /// Largest norm of all gradients; 0: no limit.
    pub clip: f64,
    /// Share of the weights that is added to their gradient.
    pub decay: f64,
    /// SGD: what is kept of momentum. Adam: the share of the new in the first moment.
    pub of_first: f64,
    /// Adam: the share of the new in the second moment.
    pub of_second: f64,
    /// Adam: added to the root of the second moment.
    pub epsilon: f64,
    /// SGD: what of momentum is added to the direction once more (Nesterov); 0: momentum itself is the direction.
    pub ahead: f64,
}

/// One update: `[n]` each where nothing else is said, of one kind, f32 or f64.
#[derive(Debug, Clone, Copy)]
pub struct Descent<'a> {
    /// What is updated.
    pub weights: &'a Tensor,
    /// What it goes down.
    pub gradients: &'a Tensor,
    /// Momentum, or the first moment.
    pub first: &'a Tensor,
    /// The second moment: then it is Adam.
    pub second: Option<&'a Tensor>,
    /// A copy of the weights in bf16, which is kept equal.
    pub narrowed: Option<&'a Tensor>,
    /// Which weights stay in [0, 1], as truth values.
    pub shares: Option<&'a Tensor>,
    /// The sum of the squares of all gradients, 0-dimensional f64.
    pub squares: &'a Tensor,
    /// f64: the learning rate; of Adam also step size, correction and what is kept of the weights.
    pub factors: &'a Tensor,
    /// What does not vary.
    pub constants: Constants,
}

/// What an update found: both 0-dimensional.
#[derive(Debug)]
pub struct Norm {
    /// The norm of all gradients, in the kind of the weights.
    pub value: Tensor,
    /// Whether it is finite.
    pub finite: Tensor,
}

/// Whether the functions here work on such a tensor in this form.
pub fn serves(flat: &Tensor, form: Form) -> bool {
    // SAFETY: the handle belongs to a tensor borrowed for this call.
    unsafe { scrimp_flat_serves(handle(flat), form) }
}

fn optional(tensor: Option<&Tensor>) -> Handle {
    tensor.map_or(std::ptr::null_mut(), handle)
}

/// Refuses a tensor in which a kernel would read or write something else.
fn check(name: &str, tensor: &Tensor, like: (&[i64], Kind, &Tensor)) -> Result<()> {
    let (shape, kind, place) = like;
    let is_sound = tensor.size() == shape
        && tensor.kind() == kind
        && tensor.device() == place.device()
        && tensor.is_contiguous();
    if is_sound {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{name} of an update are {:?} {:?} on {:?}, expected {kind:?} {shape:?} on {:?}",
        tensor.kind(),
        tensor.size(),
        tensor.device(),
        place.device()
    )))
}

/// Changes weights and moments by one step where the norm of the gradients is finite, in the formulas of
/// `train::optimizer`; for tensors that it [`serves`].
pub fn descend(of: &Descent<'_>, form: Form) -> Result<Norm> {
    let weights = of.weights;
    let (size, kind) = (weights.size(), weights.kind());
    let flat = [Some(of.gradients), Some(of.first), of.second];
    for tensor in flat.into_iter().flatten() {
        check("gradients and moments", tensor, (&size, kind, weights))?;
    }
    if let Some(narrowed) = of.narrowed {
        check("narrowed weights", narrowed, (&size, Kind::BFloat16, weights))?;
    }
    if let Some(shares) = of.shares {
        check("shares", shares, (&size, Kind::Bool, weights))?;
    }
    check("squares", of.squares, (&[], Kind::Double, weights))?;
    let count = if of.second.is_some() { 4 } else { 1 };
    check("factors", of.factors, (&[count], Kind::Double, weights))?;
    let norm = Norm {
        value: Tensor::empty([], (kind, weights.device())),
        finite: Tensor::empty([], (Kind::Bool, weights.device())),
    };
    let tensors = [
        handle(weights),
        handle(of.gradients),
        handle(of.first),
        optional(of.second),
        optional(of.narrowed),
        optional(of.shares),
        handle(of.squares),
        handle(of.factors),
        handle(&norm.value),
        handle(&norm.finite),
    ];
    let handles = DescentHandles { tensors, constants: of.constants };
    // SAFETY: all handles belong to tensors alive during this call, whose kinds, sizes, contiguity and place
    // were checked above; `DescentHandles` has the layout of `ScrimpDescent`.
    checked(unsafe { scrimp_flat_descend(&raw const handles, form) })?;
    Ok(norm)
}

/// Where a moving average goes, and how far.
#[derive(Debug, Clone, Copy)]
pub struct Following<'a> {
    /// `[n]` as the average.
    pub leader: &'a Tensor,
    /// What is kept of the average, 0-dimensional f64 in [0, 1].
    pub keep: &'a Tensor,
    /// 0-dimensional boolean: whether it moves at all.
    pub finite: &'a Tensor,
}

/// Moves `weights` (`[n]`, f32 or f64) towards those of a leader, and keeps a copy in bf16 equal; for tensors
/// that it [`serves`].
pub fn follow(
    weights: &Tensor,
    narrowed: Option<&Tensor>,
    of: Following<'_>,
    form: Form,
) -> Result<()> {
    let (size, kind) = (weights.size(), weights.kind());
    check("leading weights", of.leader, (&size, kind, weights))?;
    check("a kept share", of.keep, (&[], Kind::Double, weights))?;
    check("flags", of.finite, (&[], Kind::Bool, weights))?;
    if let Some(narrowed) = narrowed {
        check("narrowed weights", narrowed, (&size, Kind::BFloat16, weights))?;
    }
    // SAFETY: all handles belong to tensors borrowed for this call, which were checked above.
    checked(unsafe {
        scrimp_flat_follow(
            handle(weights),
            handle(of.leader),
            optional(narrowed),
            handle(of.keep),
            handle(of.finite),
            form,
        )
    })
}

/// Sums of squares, `f64 [count]`, of the shares from `first` on of `flat` (`[n]`, f32 or f64), which is
/// divided among `ranks` as by `shares::local_share`. A share has the same bits whichever are asked for.
pub fn squares(flat: &Tensor, ranks: usize, shares: std::ops::Range<usize>) -> Result<Tensor> {
    squares_in(flat, ranks, shares, Form::Own)
}

/// The same in any form.
fn squares_in(
    flat: &Tensor,
    ranks: usize,
    shares: std::ops::Range<usize>,
    form: Form,
) -> Result<Tensor> {
    check("gradients", flat, (&[flat.numel() as i64], flat.kind(), flat))?;
    if shares.end > ranks || ranks == 0 {
        return Err(Failure::new(format!("there are no shares {shares:?} of {ranks}")));
    }
    let mut out: Handle = std::ptr::null_mut();
    // SAFETY: the handle belongs to a contiguous tensor borrowed for this call, and the shares lie in it.
    checked(unsafe {
        scrimp_flat_squares(
            &raw mut out,
            handle(flat),
            ranks as i64,
            shares.start as i64,
            shares.len() as i64,
            form,
        )
    })?;
    Ok(adopted(out))
}

/// Copies each of `from` over that of `to`, unless a 0-dimensional boolean beside them is true: contiguous tensors in
/// one place, in pairs of one kind and size, whose bytes divide by 4.
pub fn copy(to: &[Tensor], from: &[Tensor], unless: Option<&Tensor>, form: Form) -> Result<()> {
    let Some(first) = to.first() else { return Ok(()) };
    let words =
        |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()).is_multiple_of(4);
    if to.len() != from.len() || !to.iter().all(|to| to.is_contiguous() && words(to)) {
        return Err(Failure::new("tensors cannot be copied at once"));
    }
    for (to, from) in to.iter().zip(from) {
        check("copies", to, (&from.size(), from.kind(), first))?;
        check("originals", from, (&to.size(), to.kind(), first))?;
    }
    if let Some(unless) = unless {
        check("conditions", unless, (&[], Kind::Bool, first))?;
    }
    let [to, from]: [Vec<Handle>; 2] = [to, from].map(|all| all.iter().map(handle).collect());
    // SAFETY: all handles belong to tensors borrowed for this call, which were checked above.
    checked(unsafe {
        scrimp_flat_copy(to.as_ptr(), from.as_ptr(), to.len() as i64, optional(unless), form)
    })
}

/// A tensor that gets a gradient.
#[derive(Debug)]
pub struct Leaf {
    /// The tensor.
    pub tensor: Tensor,
    /// The same numbers in bf16, which may get the gradient in its place.
    pub narrowed: Option<Tensor>,
}

/// Lets leaves have no gradient, so that the next backward gives them theirs and adds to nothing.
pub fn forget_gradients(leaves: &[Leaf]) -> Result<()> {
    let tensors =
        leaves.iter().flat_map(|leaf| std::iter::once(&leaf.tensor).chain(&leaf.narrowed));
    let handles: Vec<Handle> = tensors.map(handle).collect();
    // SAFETY: the handles belong to tensors borrowed for this call; backward does not run meanwhile.
    checked(unsafe { scrimp_flat_forget(handles.as_ptr(), handles.len() as i64) })
}

/// Where gradients of leaves lie in a flat tensor.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Where each leaf begins, ascending.
    pub starts: &'a [i64],
    /// Where the padding behind the last ends.
    pub end: i64,
}

/// Puts the gradients of leaves to their places in `flat` (`[n]`, f32 or f64), or adds them to what is there;
/// afterwards the leaves have none. Those without a gradient get zeros, and so does the padding.
///
/// A leaf's gradient lies in the flat tensor in the order in which the leaf itself lies in memory. Either the leaf has
/// one or its narrowed copy, which lies in memory alike.
pub fn gather(
    flat: &Tensor,
    leaves: &[Leaf],
    places: Places<'_>,
    adds: bool,
    form: Form,
) -> Result<()> {
    let Places { starts, end } = places;
    check("gradients", flat, (&[flat.numel() as i64], flat.kind(), flat))?;
    let ends = starts.iter().skip(1).chain([&end]);
    let fits = leaves.len() == starts.len()
        && end <= flat.numel() as i64
        && starts.first().is_none_or(|start| *start >= 0)
        && leaves.iter().zip(starts).zip(ends).all(|((leaf, start), end)| {
            i32::try_from(leaf.tensor.numel()).is_ok_and(|count| start + i64::from(count) <= *end)
        });
    if !fits {
        return Err(Failure::new("gradients do not fit into their places"));
    }
    let handles: Vec<Handle> = leaves.iter().map(|leaf| handle(&leaf.tensor)).collect();
    let narrowed: Vec<Handle> =
        leaves.iter().map(|leaf| optional(leaf.narrowed.as_ref())).collect();
    let count = handles.len() as i64;
    // SAFETY: the handles belong to tensors borrowed for this call, one for each start, and each gradient,
    // which has the shape of its leaf, lies within `flat`, as was checked above.
    checked(unsafe {
        scrimp_flat_gather(
            handle(flat),
            handles.as_ptr(),
            narrowed.as_ptr(),
            starts.as_ptr(),
            count,
            end,
            adds,
            form,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn sums_of_squares_keep_their_digits_and_are_those_of_a_share_alone() {
        for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
            for count in [0, 3, 1024, 50_021, 1_000_003] {
                let flat = Tensor::ones([count], (Kind::Float, Device::Cpu)) * 0.1;
                let sums = squares_in(&flat, 3, 0..3, form).unwrap();
                let expected = 0.1 * (count as f64).sqrt();
                let found = sums.sum(Kind::Double).sqrt().double_value(&[]);
                assert!((found - expected).abs() <= 1e-6 * expected, "{form:?} {count}: {found}");
                let second = squares_in(&flat, 3, 1..2, form).unwrap();
                assert!(second.get(0).equal(&sums.get(1)), "{form:?}");
            }
        }
    }

    #[test]
    fn tensors_that_do_not_belong_together_are_refused() {
        let (weights, other) = (
            Tensor::zeros([4], (Kind::Float, Device::Cpu)),
            Tensor::zeros([5], (Kind::Float, Device::Cpu)),
        );
        let [keep, finite] = [Tensor::from(0.5f64), Tensor::from(true)];
        let of = Following { leader: &other, keep: &keep, finite: &finite };
        let failure = follow(&weights, None, of, Form::Own).unwrap_err();
        assert!(failure.message().contains("expected Float [4]"), "{failure}");
    }

    /// Leaves of some sizes at multiples of 16, every third with its gradient in bf16, every fifth without one.
    fn leaves(kind: Kind) -> (Vec<Leaf>, Vec<i64>, i64) {
        let (mut leaves, mut starts, mut end) = (Vec::new(), Vec::new(), 32);
        for number in 0..300 {
            let count = 1 + number * 7 % 50;
            let of =
                |kind: Kind| Tensor::zeros([count], (kind, Device::Cpu)).set_requires_grad(true);
            let tensor = of(kind);
            let narrowed = (number % 3 == 0).then(|| of(Kind::BFloat16));
            let used = narrowed.as_ref().unwrap_or(&tensor);
            if number % 5 != 0 {
                let factor = Tensor::arange(count, (used.kind(), Device::Cpu)) + number;
                (used * factor).sum(used.kind()).backward();
            }
            leaves.push(Leaf { tensor, narrowed });
            starts.push(end);
            end += (count + 15) / 16 * 16;
        }
        (leaves, starts, end)
    }

    #[test]
    fn tensors_are_copied_unless_the_condition_holds() {
        let of = |value: i64| {
            let kinds = [Kind::Float, Kind::Int64, Kind::Double, Kind::BFloat16];
            let tensor = |n: i64| {
                let kind = kinds[n as usize % 4];
                Tensor::full([2 * (n % 5), 3], value + n, (kind, Device::Cpu))
            };
            (0..70).map(tensor).collect::<Vec<_>>()
        };
        let equal = |a: &[Tensor], b: &[Tensor]| a.iter().zip(b).all(|(a, b)| a.equal(b));
        for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
            let (to, from) = (of(1), of(2));
            copy(&to, &from, Some(&Tensor::from(true)), form).unwrap();
            assert!(equal(&to, &of(1)), "{form:?}");
            copy(&to, &from, Some(&Tensor::from(false)), form).unwrap();
            assert!(equal(&to, &from), "{form:?}");
            copy(&to, &of(3), None, form).unwrap();
            assert!(equal(&to, &of(3)), "{form:?}");
        }
        assert!(copy(&of(1), &of(1)[1..], None, Form::Own).is_err());
    }

    #[test]
    fn gradients_come_to_their_places_in_all_forms() {
        for kind in [Kind::Float, Kind::Double] {
            let gathered = |form: Form| {
                let (first, starts, end) = leaves(kind);
                let flat = Tensor::full([end + 3], 7.0, (kind, Device::Cpu));
                let places = Places { starts: &starts, end };
                // Padding is zero already where tensor operations gather.
                let _ = flat.narrow(0, 32, end - 32).zero_();
                gather(&flat, &first, places, false, form).unwrap();
                assert!(first.iter().all(|leaf| !leaf.tensor.grad().defined()));
                let once = flat.copy();
                gather(&flat, &leaves(kind).0, places, true, form).unwrap();
                assert!(flat.narrow(0, 32, end - 32).equal(&(once.narrow(0, 32, end - 32) * 2)));
                for untouched in [flat.narrow(0, 0, 32), flat.narrow(0, end, 3)] {
                    assert!(untouched.equal(&untouched.full_like(7.0)), "{form:?}");
                }
                once
            };
            let expected = gathered(Form::Plain);
            let places = leaves(kind).1;
            // The second leaf has 8 elements, 1 to 8, and the first none.
            let found =
                [places[0], places[1] + 7].map(|place| expected.double_value(&[place]) as i64);
            assert_eq!(found, [0, 8]);
            assert!(gathered(Form::Own).equal(&expected), "{kind:?}");
            assert!(gathered(Form::DeviceTwin).equal(&expected), "{kind:?}");
        }
    }

    #[test]
    fn a_gradient_in_another_order_than_its_leaf_is_put_into_the_order_of_the_leaf() {
        let options = (Kind::Float, Device::Cpu);
        for form in [Form::Own, Form::Plain, Form::DeviceTwin] {
            let flat = Tensor::zeros([32], options);
            let leaf =
                Tensor::zeros([2, 3, 1, 4], options).permute([0, 2, 3, 1]).set_requires_grad(true);
            let factor = Tensor::arange(24, options).view([2, 1, 4, 3]);
            (&leaf * &factor).sum(Kind::Float).backward();
            let leaf = Leaf { tensor: leaf, narrowed: None };
            gather(&flat, &[leaf], Places { starts: &[0], end: 32 }, false, form).unwrap();
            let expected = factor.permute([0, 3, 1, 2]).contiguous().view([-1]);
            assert!(flat.narrow(0, 0, 24).equal(&expected), "{form:?}");
        }
    }
}
