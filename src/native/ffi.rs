//! Calls into `shim.cpp`: the only code that crosses the C ABI.
#![expect(unsafe_code, reason = "this file is the foreign-function border to libtorch")]

use super::{
    Form, GroupSum, Neighbourhood, Normalisation, NormalisedChannels, Order, PairKernel,
    TrainingPass,
};
use crate::error::{Failure, Result};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// A pointer to an `at::Tensor`.
pub(super) type Handle = *mut c_void;
type SumFunction = extern "C" fn(*mut c_void, Handle) -> c_int;
type CallFunction = extern "C" fn(*mut c_void) -> c_int;
type DropFunction = extern "C" fn(*mut c_void);

unsafe extern "C" {
    fn scrimp_free_text(text: *mut c_char);
    fn scrimp_normalise(
        out: *mut Handle,
        x: Handle,
        channels: *const Handle,
        keys: Handle,
        settings: *const Normalisation,
        group: *mut c_void,
        sum_function: SumFunction,
        drop_function: DropFunction,
    ) -> *mut c_char;
    fn scrimp_normalise_evaluate(
        out: *mut Handle,
        x: Handle,
        channels: *const Handle,
        settings: *const Normalisation,
    ) -> *mut c_char;
    fn scrimp_arrange_twin(processors: i64, order: i64);
    fn scrimp_normal(out: *mut Handle, keys: Handle, like: Handle, form: Form) -> *mut c_char;
    fn scrimp_prepare_process();
    fn scrimp_return_large_blocks();
    fn scrimp_allow_tf32(allowed: bool) -> *mut c_char;
    fn scrimp_channels_last(out: *mut Handle, x: Handle) -> *mut c_char;
    fn scrimp_neighbour_sums(
        out: *mut Handle,
        inputs: *const Handle,
        masks: *const Handle,
        kernels: *const PairKernel,
        count: i64,
        radius: *const i64,
        form: Form,
    ) -> *mut c_char;
    fn scrimp_sums_neighbours(probabilities: Handle, form: Form) -> bool;
    fn scrimp_on_gradient(
        variable: Handle,
        context: *mut c_void,
        call: CallFunction,
        drop_function: DropFunction,
    ) -> *mut c_char;
    fn scrimp_cpu_memory(
        tensor: Handle,
        address: *mut *mut c_void,
        count: *mut i64,
        scalar_type: *mut c_int,
    ) -> *mut c_char;
}

/// Turns the error text of the shim into a failure, and frees it.
pub(super) fn checked(text: *mut c_char) -> Result<()> {
    if text.is_null() {
        return Ok(());
    }
    let message = adopted_text(text);
    let first_line = message.lines().next().unwrap_or_default().to_owned();
    Err(Failure::new(first_line).during("libtorch refused an operation"))
}

/// Takes over a text of the shim, which must not be null.
pub(super) fn adopted_text(text: *mut c_char) -> String {
    // SAFETY: the shim's texts are NUL-terminated strings from strdup that nobody else holds.
    unsafe {
        let words = CStr::from_ptr(text).to_string_lossy().into_owned();
        scrimp_free_text(text);
        words
    }
}

/// The address that tch holds; the shim reads it as `at::Tensor*`.
pub(super) fn handle(tensor: &Tensor) -> Handle {
    tensor.as_ptr().cast_mut().cast()
}

/// Takes over a tensor that the shim allocated with `new`.
pub(super) fn adopted(out: Handle) -> Tensor {
    // SAFETY: called only after the shim reported success, so `out` points to a new at::Tensor,
    // which tch deletes when the returned value is dropped.
    unsafe { Tensor::from_ptr(out.cast()) }
}

/// The callback of the shim: sums in place; 1 tells the shim to throw.
extern "C" fn sum_over_group(group: *mut c_void, tensor: Handle) -> c_int {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `group` is the box that `normalise` leaked, alive until `drop_group`; `tensor`
        // points to a live at::Tensor of the caller, and clone_from_ptr makes a handle of our own.
        let (group, tensor) =
            unsafe { (&*group.cast::<Arc<dyn GroupSum>>(), Tensor::clone_from_ptr(tensor.cast())) };
        group.sum(&tensor);
    }))
    .map_or(1, |()| 0)
}

extern "C" fn drop_group(group: *mut c_void) {
    // SAFETY: the shim calls this exactly once per `normalise`, with the box leaked there.
    drop(unsafe { Box::from_raw(group.cast::<Arc<dyn GroupSum>>()) });
}

/// In the order of `ScrimpChannel`.
fn channel_handles(channels: &NormalisedChannels, batches: Option<&Tensor>) -> [Handle; 6] {
    let NormalisedChannels { weight, bias, absorbed, running_mean, running_var } = channels;
    let [weight, bias, absorbed, mean, var] =
        [weight, bias, absorbed, running_mean, running_var].map(handle);
    [weight, bias, absorbed, mean, var, batches.map_or(std::ptr::null_mut(), handle)]
}

/// `dropout(leaky_relu(batch_norm(x)))` for training: `x` and the result are `[N, C, H, W]` or
/// `[N, C, D, H, W]`.
///
/// Statistics are those of all samples of all ranks of the group; running statistics move.
/// Differentiable in `x`, weight and bias, not in what is absorbed; the gradients of weight and bias are this rank's share.
/// The result is channels-last. An empty local batch takes part with a count of zero.
pub fn normalise(
    x: &Tensor,
    channels: &NormalisedChannels,
    settings: Normalisation,
    pass: &TrainingPass<'_>,
) -> Result<Tensor> {
    let mut out: Handle = std::ptr::null_mut();
    // Nothing is summed where a rank is alone.
    let group = if pass.group.ranks() == 1 {
        std::ptr::null_mut()
    } else {
        Box::into_raw(Box::new(Arc::clone(pass.group)))
    };
    let keys = pass.keys.map_or(std::ptr::null_mut(), handle);
    // SAFETY: all handles belong to tensors borrowed for this call; the shim takes over `group`
    // whether it succeeds or not, and frees it through `drop_group` unless it is null.
    let text = unsafe {
        scrimp_normalise(
            &raw mut out,
            handle(x),
            channel_handles(channels, pass.batches).as_ptr(),
            keys,
            &raw const settings,
            group.cast(),
            sum_over_group,
            drop_group,
        )
    };
    checked(text)?;
    Ok(adopted(out))
}

/// `leaky_relu(batch_norm(x))` with the running statistics; records no gradient.
pub fn normalise_evaluate(
    x: &Tensor,
    channels: &NormalisedChannels,
    settings: Normalisation,
) -> Result<Tensor> {
    let mut out: Handle = std::ptr::null_mut();
    // SAFETY: all handles belong to tensors borrowed for this call.
    let text = unsafe {
        scrimp_normalise_evaluate(
            &raw mut out,
            handle(x),
            channel_handles(channels, None).as_ptr(),
            &raw const settings,
        )
    };
    checked(text)?;
    Ok(adopted(out))
}

/// How [`Form::DeviceTwin`] computes on this thread from now on: as a device with so many multiprocessors,
/// at least 1, whose threads run one after the other in this order. For tests.
pub fn arrange_twin(processors: i64, order: Order) {
    let order = match order {
        Order::Forward => 0,
        Order::Reversed => -1,
        Order::Shuffled(seed) => i64::from(seed) + 1,
    };
    // SAFETY: sets two numbers of this thread.
    unsafe { scrimp_arrange_twin(processors.max(1), order) }
}

/// Standard normal numbers, `[keys, ...]` with the other extents, the precision and the device of
/// `like`: those of each key (`i64 [keys]`, as `random::Key::bits`) depend on nothing else. Forms round differently.
pub fn normal(keys: &Tensor, like: &Tensor, form: Form) -> Result<Tensor> {
    let mut out: Handle = std::ptr::null_mut();
    // SAFETY: both handles belong to tensors borrowed for this call.
    checked(unsafe { scrimp_normal(&raw mut out, handle(keys), handle(like), form) })?;
    Ok(adopted(out))
}

/// Settings of the process: the allocator keeps the memory of activations between steps instead of returning it
/// to the system, and NCCL starts sums on two streams in one order on all ranks. Variables of the environment that
/// say otherwise hold. To be called once, before any other thread starts.
pub fn prepare_process() {
    // SAFETY: sets options of the allocator and variables of the environment; the caller promises that
    // no other thread reads the environment meanwhile.
    unsafe { scrimp_prepare_process() }
}

/// Settings of the process for networks over volumes: memory of 36 MiB and more returns to the system when it is
/// freed. A step takes a tenth longer, and the process three tenths less memory, because no holes are left between
/// blocks of many sizes.
pub fn return_large_blocks() {
    // SAFETY: sets an option of the allocator, which has a lock of its own.
    unsafe { scrimp_return_large_blocks() }
}

/// Whether GPUs may shorten the factors of single-precision products to 10 bits of mantissa, in
/// convolutions and matrix products alike. libtorch's own default is yes for convolutions.
pub fn allow_tf32(allowed: bool) -> Result<()> {
    // SAFETY: sets two options of libtorch; the argument is a plain value.
    checked(unsafe { scrimp_allow_tf32(allowed) })
}

/// A copy of `[N, C, H, W]` or `[N, C, D, H, W]` whose memory runs along C first, also where C is 1.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    let mut out: Handle = std::ptr::null_mut();
    // SAFETY: the handle belongs to a tensor borrowed for this call.
    checked(unsafe { scrimp_channels_last(&raw mut out, handle(x)) })?;
    Ok(adopted(out))
}

/// Whether [`neighbour_sums`] can be made of such a tensor in this form.
pub fn sums_neighbours(probabilities: &Tensor, form: Form) -> bool {
    // SAFETY: the handle belongs to a tensor borrowed for this call.
    unsafe { scrimp_sums_neighbours(handle(probabilities), form) }
}

/// For every pixel the weighted sum of its neighbours' `probabilities` (`[N, C, H, W]` or
/// `[N, C, D, H, W]`), and the sum of the weights of all pairs in both directions, `f64 [N]`; records no
/// gradient.
///
/// `image` has one channel, and decides the weights. With masks the weight of a pair is that of its
/// two directions together, halved, so that it stays symmetric. For tensors in f32 or f64, where
/// [`sums_neighbours`].
pub fn neighbour_sums(
    probabilities: &Tensor,
    image: &Tensor,
    neighbourhood: &Neighbourhood<'_>,
) -> Result<[Tensor; 2]> {
    let Neighbourhood { kernels, radius, masks, form } = neighbourhood;
    let kind = probabilities.kind();
    if !matches!(kind, Kind::Float | Kind::Double) || !matches!(probabilities.dim(), 4 | 5) {
        return Err(Failure::new(format!(
            "neighbours are summed in maps [N, C, H, W] or [N, C, D, H, W] of f32 or f64, found {kind:?} {:?}",
            probabilities.size()
        )));
    }
    let mut shape = probabilities.size();
    shape[1] = 1;
    let planes = std::iter::once(&image).chain(masks.iter().flatten());
    if let Some(plane) = planes.clone().find(|plane| plane.size() != shape) {
        return Err(Failure::new(format!(
            "image and masks of neighbours must be {shape:?}, found {:?}",
            plane.size()
        )));
    }
    let planes: Vec<Tensor> = planes.map(|plane| plane.to_kind(kind).contiguous()).collect();
    let probabilities = probabilities.contiguous();
    if let Some(plane) = planes.iter().find(|plane| plane.device() != probabilities.device()) {
        return Err(Failure::new(format!(
            "image and masks of neighbours must be on {:?}, found {:?}",
            probabilities.device(),
            plane.device()
        )));
    }
    let inputs = [handle(&probabilities), handle(&planes[0])];
    let masks: Vec<Handle> = planes[1..].iter().map(handle).collect();
    let masks = if masks.is_empty() { std::ptr::null() } else { masks.as_ptr() };
    let mut out: [Handle; 2] = [std::ptr::null_mut(); 2];
    let count = kernels.len() as i64;
    // SAFETY: all handles belong to tensors alive during this call, whose kind, shapes, contiguity
    // and place were checked above; `kernels` points to `count` values of the mirrored layout, `radius` to three
    // numbers.
    checked(unsafe {
        scrimp_neighbour_sums(
            out.as_mut_ptr(),
            inputs.as_ptr(),
            masks,
            kernels.as_ptr(),
            count,
            radius.as_ptr(),
            *form,
        )
    })?;
    Ok(out.map(adopted))
}

/// What happens when the gradient of a tensor is there.
type GradientCallback = Box<dyn Fn() + Send + Sync>;

/// Calls `then` whenever backward has accumulated the gradient of `variable`, a leaf, on the thread
/// that runs backward and before backward is over; for as long as any handle of `variable` lives.
pub fn on_gradient(variable: &Tensor, then: GradientCallback) -> Result<()> {
    let context = Box::into_raw(Box::new(then));
    // SAFETY: the handle belongs to a tensor borrowed for this call; the shim takes over `context`
    // whether it succeeds or not, and frees it through `drop_callback`.
    checked(unsafe {
        scrimp_on_gradient(handle(variable), context.cast(), call_back, drop_callback)
    })
}

/// 1 tells the shim to throw.
extern "C" fn call_back(context: *mut c_void) -> c_int {
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `context` is the box that `on_gradient` leaked, alive until `drop_callback`.
        let then = unsafe { &*context.cast::<GradientCallback>() };
        then();
    }))
    .map_or(1, |()| 0)
}

extern "C" fn drop_callback(context: *mut c_void) {
    // SAFETY: the shim calls this exactly once per `on_gradient`, with the box leaked there.
    drop(unsafe { Box::from_raw(context.cast::<GradientCallback>()) });
}

/// A Rust type with the memory layout of a tensor's elements.
pub trait Element: Copy {
    /// The tensor kind of this type.
    const KIND: Kind;
}
impl Element for f32 {
    const KIND: Kind = Kind::Float;
}
impl Element for f64 {
    const KIND: Kind = Kind::Double;
}
impl Element for i64 {
    const KIND: Kind = Kind::Int64;
}
impl Element for u8 {
    const KIND: Kind = Kind::Uint8;
}

/// Address and number of the elements of a CPU tensor, checked for device and contiguity.
fn address(tensor: &Tensor) -> Result<(*mut c_void, usize)> {
    let mut address = std::ptr::null_mut();
    let (mut count, mut scalar_type) = (0i64, 0);
    // SAFETY: the handle belongs to a borrowed tensor; the three results are plain values.
    checked(unsafe {
        scrimp_cpu_memory(handle(tensor), &raw mut address, &raw mut count, &raw mut scalar_type)
    })?;
    Ok((address, count as usize))
}

/// The elements of a CPU tensor, checked for device, kind and contiguity.
fn memory<T: Element>(tensor: &Tensor) -> Result<(*mut T, usize)> {
    let (address, count) = address(tensor)?;
    if tensor.kind() != T::KIND {
        return Err(Failure::new(format!(
            "a tensor of kind {:?} was read as {:?}",
            tensor.kind(),
            T::KIND
        )));
    }
    if count == 0 {
        // Empty tensors may have no memory; a slice needs an aligned address all the same.
        return Ok((std::ptr::NonNull::dangling().as_ptr(), 0));
    }
    Ok((address.cast(), count))
}

/// Lends the memory of a contiguous CPU tensor of any kind as bytes, for reading.
pub fn with_bytes<R>(tensor: &Tensor, body: impl FnOnce(&[u8]) -> R) -> Result<R> {
    let (address, count) = address(tensor)?;
    if count == 0 {
        return Ok(body(&[]));
    }
    let length = count * tensor.kind().elt_size_in_bytes();
    // SAFETY: `address` checked device and contiguity, so that `count` elements lie there without
    // gaps; bytes have no alignment and no invalid values; for the rest, as in `with_slice`.
    Ok(body(unsafe { std::slice::from_raw_parts(address.cast::<u8>(), length) }))
}

/// Lends the elements of a contiguous CPU tensor, in memory order, for reading.
pub fn with_slice<T: Element, R>(tensor: &Tensor, body: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (address, count) = memory::<T>(tensor)?;
    // SAFETY: `memory` checked address, kind and length; the borrow of `tensor` keeps the storage
    // alive, and no operation of libtorch runs on this storage while `body` does.
    Ok(body(unsafe { std::slice::from_raw_parts(address, count) }))
}

/// Lends the elements of a contiguous CPU tensor, in memory order, for writing.
///
/// Tensors are handles: `body` must not use another handle on the same storage.
pub fn with_slice_mut<T: Element, R>(
    tensor: &Tensor,
    body: impl FnOnce(&mut [T]) -> R,
) -> Result<R> {
    let (address, count) = memory::<T>(tensor)?;
    // SAFETY: as in `with_slice`; that `body` touches no other handle is its documented duty.
    Ok(body(unsafe { std::slice::from_raw_parts_mut(address, count) }))
}
