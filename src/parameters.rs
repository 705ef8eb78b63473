//! Named tensors in a fixed order, and the one contiguous tensor behind all trainable ones.
//!
//! Networks register their tensors through a [`Scope`]; the order of registration is the order of
//! the state dictionary. Knows no optimiser and no file format.

use crate::error::Result;
use crate::native::Form;
use crate::native::flat::{Leaf, Places, forget_gradients, gather};
use crate::random::{Draws, Key};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Elements to which every parameter is aligned in the flat tensor: 64 bytes of `f32`.
pub const ALIGNMENT: i64 = 16;

/// What becomes of a tensor during training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Changed by an optimiser.
    Trainable,
    /// The same, and kept in [0, 1].
    Share,
    /// Trainable to the optimiser, but no gradient ever arrives: a bias in front of a normalisation, which
    /// takes out every constant. Its gradient stays zero.
    Absorbed,
    /// Changed by forward passes, or by nothing: running statistics and their counters.
    Buffer,
}

/// One named tensor.
#[derive(Debug)]
pub struct Entry {
    /// Name in the state dictionary, for example `encoder.in_conv.conv_conv.0.weight`.
    pub name: String,
    /// A handle that shares its storage with the network.
    pub tensor: Tensor,
    /// The same numbers in those that convolutions compute in, where some use them in place of the tensor.
    pub narrowed: Option<Tensor>,
    /// What becomes of it.
    pub role: Role,
}

impl Entry {
    /// What gets its gradient.
    fn leaf(&self) -> Leaf {
        let own = Tensor::shallow_clone;
        Leaf { tensor: own(&self.tensor), narrowed: self.narrowed.as_ref().map(own) }
    }
}

/// The tensors of one learner.
#[derive(Debug)]
pub struct Parameters {
    entries: Vec<Entry>,
    key: Key,
    kind: Kind,
    computed: Kind,
    device: Device,
}

impl Parameters {
    /// Without tensors yet; `key` decides the initial values, `kind` the precision.
    pub fn new(key: Key, kind: Kind, device: Device) -> Self {
        Self { entries: Vec::new(), key, kind, computed: kind, device }
    }

    /// The same, for networks whose convolutions compute in numbers of kind `computed`.
    #[must_use]
    pub fn computing_in(self, computed: Kind) -> Self {
        Self { computed, ..self }
    }

    /// Where a network registers its tensors.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { parameters: self, prefix: String::new(), drawn_as: String::new() }
    }

    /// All tensors in order of registration.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The number of trainable values.
    pub fn trainable_count(&self) -> usize {
        self.trainable().map(|entry| entry.tensor.numel()).sum()
    }

    /// The tensors that an optimiser changes, in order.
    pub fn trainable(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.role != Role::Buffer)
    }
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// A place in the tree of names.
#[derive(Debug)]
pub struct Scope<'a> {
    parameters: &'a mut Parameters,
    prefix: String,
    /// The place whose initial values this one has: itself, or one that it is a copy of.
    drawn_as: String,
}

impl Scope<'_> {
    /// The place `name` below this one.
    pub fn sub(&mut self, name: &str) -> Scope<'_> {
        self.sub_like(name, name)
    }

    /// The same, whose tensors begin as those of equal names and shapes of the place `like` below this one.
    pub fn sub_like(&mut self, name: &str, like: &str) -> Scope<'_> {
        let (prefix, drawn_as) = (self.path(name), joined(&self.drawn_as, like));
        Scope { parameters: self.parameters, prefix, drawn_as }
    }

    fn path(&self, name: &str) -> String {
        joined(&self.prefix, name)
    }

    /// Random numbers for the initial values of a tensor.
    fn draws(&self, name: &str) -> Draws {
        self.parameters.key.purpose(&joined(&self.drawn_as, name)).draws()
    }

    /// In which numbers convolutions compute, whatever those that are stored.
    pub fn computed(&self) -> Kind {
        self.parameters.computed
    }

    /// The full name of this place.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    fn register(&mut self, name: &str, value: &Tensor, role: Role) -> Tensor {
        let value = value.to_device(self.parameters.device);
        let tensor = if role == Role::Buffer { value } else { value.set_requires_grad(true) };
        let handle = tensor.shallow_clone();
        let entry = Entry { name: self.path(name), tensor, narrowed: None, role };
        self.parameters.entries.push(entry);
        handle
    }

    /// What convolutions compute with in place of `registered`, the tensor that was registered last: in their own
    /// numbers, and what gets the gradient. It is the tensor itself where it has no others.
    pub fn narrowed(&mut self, registered: &Tensor) -> Tensor {
        let Parameters { entries, kind, computed, .. } = &mut *self.parameters;
        let last = entries.last_mut().filter(|entry| {
            *computed == Kind::BFloat16 && *kind != *computed && entry.role == Role::Trainable
        });
        let Some(entry) = last else { return registered.shallow_clone() };
        let leaf = registered.detach().to_kind(*computed).set_requires_grad(true);
        entry.narrowed = Some(leaf.shallow_clone());
        leaf
    }

    /// A trainable tensor, uniform in `[-bound, bound)`, drawn from the key and its full name.
    pub fn uniform(&mut self, name: &str, shape: &[i64], bound: f64) -> Tensor {
        let values = self.draw(name, shape, bound);
        self.register(name, &values, Role::Trainable)
    }

    /// A trainable tensor of normal numbers with mean 0, drawn from the key and its full name.
    pub fn normal(&mut self, name: &str, shape: &[i64], deviation: f64) -> Tensor {
        let mut draws = self.draws(name);
        let count = shape.iter().product::<i64>();
        let values: Vec<f64> = (0..count).map(|_| deviation * draws.normal()).collect();
        let values = Tensor::from_slice(&values).view(shape).to_kind(self.parameters.kind);
        self.register(name, &values, Role::Trainable)
    }

    /// The same as [`Scope::uniform`] for a bias that a normalisation absorbs.
    pub fn absorbed(&mut self, name: &str, shape: &[i64], bound: f64) -> Tensor {
        let values = self.draw(name, shape, bound);
        self.register(name, &values, Role::Absorbed)
    }

    /// A trainable tensor of equal values that every update keeps in [0, 1].
    pub fn share(&mut self, name: &str, shape: &[i64], value: f64) -> Tensor {
        let tensor = Tensor::full(shape, value, (self.parameters.kind, Device::Cpu));
        self.register(name, &tensor, Role::Share)
    }

    fn draw(&self, name: &str, shape: &[i64], bound: f64) -> Tensor {
        let mut draws = self.draws(name);
        let count = shape.iter().product::<i64>();
        let values: Vec<f64> = (0..count).map(|_| draws.range(-bound, bound)).collect();
        Tensor::from_slice(&values).view(shape).to_kind(self.parameters.kind)
    }

    /// A trainable tensor of equal values.
    pub fn constant(&mut self, name: &str, shape: &[i64], value: f64) -> Tensor {
        let tensor = Tensor::full(shape, value, (self.parameters.kind, Device::Cpu));
        self.register(name, &tensor, Role::Trainable)
    }

    /// A buffer of equal values in the precision of the parameters.
    pub fn buffer(&mut self, name: &str, shape: &[i64], value: f64) -> Tensor {
        let tensor = Tensor::full(shape, value, (self.parameters.kind, Device::Cpu));
        self.register(name, &tensor, Role::Buffer)
    }

    /// A buffer of length 1 in a direction drawn from the key and its full name.
    pub fn direction(&mut self, name: &str, count: i64) -> Tensor {
        let mut draws = self.draws(name);
        let values: Vec<f64> = (0..count).map(|_| draws.normal()).collect();
        let values = Tensor::from_slice(&values);
        let unit = &values / values.norm();
        self.register(name, &unit.to_kind(self.parameters.kind), Role::Buffer)
    }

    /// A tensor that only the reference's state dictionary has a use for: nothing reads it, and it
    /// stays as it was drawn, uniform in `[-bound, bound)`.
    pub fn unused(&mut self, name: &str, shape: &[i64], bound: f64) {
        let values = self.draw(name, shape, bound);
        let _ = self.register(name, &values, Role::Buffer);
    }

    /// An integer counter, starting at 0.
    pub fn counter(&mut self, name: &str) -> Tensor {
        self.register(name, &Tensor::zeros([], (Kind::Int64, Device::Cpu)), Role::Buffer)
    }
}

/// Where one trainable tensor lies in the flat ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Name in the state dictionary.
    pub name: String,
    /// Shape of the tensor.
    pub shape: Vec<i64>,
    /// First element in the flat tensor.
    pub offset: i64,
}

impl Slot {
    /// The number of elements.
    pub fn count(&self) -> i64 {
        self.shape.iter().product()
    }

    /// This tensor's part of a flat one, as a view. The weight of a convolution, `[O, I, H, W]` or
    /// `[O, I, D, H, W]`, lies in the order O, H, W, I or O, D, H, W, I, in which features of GPUs lie too.
    pub fn view(&self, flat: &Tensor) -> Tensor {
        match *self.shape.as_slice() {
            [outputs, inputs, height, width] => {
                self.elements(flat).view([outputs, height, width, inputs]).permute([0, 3, 1, 2])
            }
            [outputs, inputs, depth, height, width] => self
                .elements(flat)
                .view([outputs, depth, height, width, inputs])
                .permute([0, 4, 1, 2, 3]),
            _ => self.plain_view(flat),
        }
    }

    /// The same where the last extent runs fastest, whatever the shape.
    pub fn plain_view(&self, flat: &Tensor) -> Tensor {
        self.elements(flat).view(self.shape.as_slice())
    }

    fn elements(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.offset, self.count())
    }
}

/// All trainable tensors of a learner as one.
///
/// The network's tensors are views of `weights`; padding between them is and stays zero.
#[derive(Debug)]
pub struct Flat {
    /// `[total]`, every trainable value.
    pub weights: Tensor,
    /// The weights in the numbers that convolutions compute in, kept equal by whoever changes them; none where
    /// nobody uses such.
    pub narrowed: Option<Tensor>,
    /// `[total]` of truth values: where an update keeps the weights in [0, 1]; none where it need not.
    pub shares: Option<Tensor>,
    /// The tensors in order.
    pub slots: Vec<Slot>,
    /// All buffers, one tensor for each kind of number, of which they are views.
    pub buffers: Vec<Tensor>,
}

impl Flat {
    /// Moves the trainable tensors of `parameters` into one, and the buffers of each kind into one.
    pub fn new(parameters: &Parameters) -> Self {
        let trainable: Vec<&Entry> = parameters.trainable().collect();
        let (slots, weights) =
            moved_into_one(&trainable, (parameters.kind, parameters.device), Slot::view);
        let shares = shares(parameters, &slots, &weights);
        let narrowed = narrowed(&trainable, &slots, &weights);
        Self { weights, narrowed, shares, slots, buffers: flat_buffers(parameters) }
    }

    /// Lets the narrowed weights equal the others, which somebody has changed.
    pub fn renew_narrowed(&self) {
        if let Some(narrowed) = &self.narrowed {
            tch::no_grad(|| narrowed.shallow_clone().copy_(&self.weights));
        }
    }

    /// `[total]`, zero: room for gradients, each at the place of its tensor in `weights`.
    pub fn gradients(&self) -> Tensor {
        self.weights.zeros_like()
    }
}

/// The tensors that get gradients from a backward, one for each slot.
///
/// They have none before a backward, so that it need not add to anything, and none once these are gathered.
#[derive(Debug)]
pub struct Leaves {
    tensors: Vec<Leaf>,
    starts: Vec<i64>,
    total: i64,
}

impl Leaves {
    /// Those of `parameters`, whose tensors lie in `flat`.
    pub fn of(parameters: &Parameters, flat: &Flat) -> Self {
        Self {
            tensors: parameters.trainable().map(Entry::leaf).collect(),
            starts: flat.slots.iter().map(|slot| slot.offset).collect(),
            total: flat.weights.numel() as i64,
        }
    }

    /// The same tensors once more.
    #[must_use]
    pub fn share(&self) -> Self {
        let own = Tensor::shallow_clone;
        let tensors = self.tensors.iter().map(|leaf| Leaf {
            tensor: own(&leaf.tensor),
            narrowed: leaf.narrowed.as_ref().map(own),
        });
        Self { tensors: tensors.collect(), starts: self.starts.clone(), total: self.total }
    }

    /// Lets them have no gradients, whoever gave them some.
    pub fn forget(&self) -> Result<()> {
        forget_gradients(&self.tensors)
    }

    /// Puts the gradients of `slots` to their places in `gradients` (`[total]`), or adds them to what is there.
    /// Without a gradient, and between the places, there is zero.
    pub fn gather(&self, slots: Range<usize>, gradients: &Tensor, adds: bool) -> Result<()> {
        let end = self.starts.get(slots.end).copied().unwrap_or(self.total);
        let places = Places { starts: &self.starts[slots.clone()], end };
        gather(gradients, &self.tensors[slots], places, adds, Form::Own)
            .map_err(|failure| failure.during("cannot gather gradients"))
    }

    /// The same of all slots.
    pub fn gather_all(&self, gradients: &Tensor, adds: bool) -> Result<()> {
        self.gather(0..self.tensors.len(), gradients, adds)
    }
}

/// Makes tensors of one kind views, as `view` gives them, of one, and says where they lie in it.
fn moved_into_one(
    entries: &[&Entry],
    options: (Kind, Device),
    view: fn(&Slot, &Tensor) -> Tensor,
) -> (Vec<Slot>, Tensor) {
    let mut slots = Vec::new();
    let mut total = 0;
    for entry in entries {
        slots.push(Slot { name: entry.name.clone(), shape: entry.tensor.size(), offset: total });
        total += (entry.tensor.numel() as i64 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    let all = Tensor::zeros([total], options);
    for (entry, slot) in entries.iter().zip(&slots) {
        tch::no_grad(|| view(slot, &all).copy_(&entry.tensor));
        entry.tensor.shallow_clone().set_data(&view(slot, &all));
    }
    (slots, all)
}

/// All weights in fewer bits, of which the narrowed tensors become views.
fn narrowed(trainable: &[&Entry], slots: &[Slot], weights: &Tensor) -> Option<Tensor> {
    let leaves = trainable
        .iter()
        .zip(slots)
        .filter_map(|(entry, slot)| Some((entry.narrowed.as_ref()?.shallow_clone(), slot)));
    let leaves: Vec<_> = leaves.collect();
    let kind = leaves.first()?.0.kind();
    let all = weights.to_kind(kind);
    for (mut leaf, slot) in leaves {
        leaf.set_data(&slot.view(&all));
    }
    Some(all)
}

/// The buffers, those of each kind as views of one tensor.
fn flat_buffers(parameters: &Parameters) -> Vec<Tensor> {
    let entries = parameters.entries.iter();
    let buffers: Vec<&Entry> = entries.filter(|entry| entry.role == Role::Buffer).collect();
    let mut kinds: Vec<Kind> = buffers.iter().map(|entry| entry.tensor.kind()).collect();
    kinds.sort_unstable_by_key(|kind| *kind as i32);
    kinds.dedup();
    let of_kind = |kind: Kind| {
        let entries = buffers.iter().filter(|entry| entry.tensor.kind() == kind);
        let entries: Vec<&Entry> = entries.copied().collect();
        moved_into_one(&entries, (kind, parameters.device), Slot::plain_view).1
    };
    kinds.into_iter().map(of_kind).collect()
}

/// Where the tensors lie that stay in [0, 1].
fn shares(parameters: &Parameters, slots: &[Slot], weights: &Tensor) -> Option<Tensor> {
    let all = weights.zeros_like().to_kind(Kind::Bool);
    let slots = parameters.trainable().zip(slots).filter(|(entry, _)| entry.role == Role::Share);
    let marked = slots.map(|(_, slot)| drop(slot.view(&all).fill_(1))).count();
    (marked > 0).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_tensors() -> (Parameters, Tensor, Tensor) {
        let mut parameters = Parameters::new(Key::new(1), Kind::Float, Device::Cpu);
        let mut root = parameters.root();
        let a = root.sub("a").uniform("weight", &[3, 5], 0.5);
        let b = root.sub("b").constant("bias", &[2], 2.0);
        (parameters, a, b)
    }

    #[test]
    fn gradients_are_gathered_in_the_flat_tensor_and_updates_reach_the_network() {
        let (parameters, a, b) = two_tensors();
        let mut flat = Flat::new(&parameters);
        let leaves = Leaves::of(&parameters, &flat);
        let gradients = flat.gradients();
        for adds in [false, true] {
            (a.sum(Kind::Float) * 3.0).backward();
            leaves.forget().unwrap();
            (a.sum(Kind::Float) * b.sum(Kind::Float)).backward();
            leaves.gather_all(&gradients, adds).unwrap();
        }
        assert_eq!(flat.slots[1].offset, 16);
        assert!(flat.slots[0].view(&gradients).allclose(&(a.ones_like() * 8.0), 1e-6, 0.0, false));
        assert!(gradients.get(15).equal(&Tensor::from(0.0f32)), "padding was touched");
        let before = a.copy();
        let _ = tch::no_grad(|| flat.weights.g_sub_(&(&gradients * 0.1)));
        assert!((before - &a).allclose(&(a.ones_like() * 0.8), 1e-6, 1e-6, false));
    }

    #[test]
    fn weights_of_convolutions_lie_with_their_inputs_side_by_side() {
        let mut parameters = Parameters::new(Key::new(1), Kind::Float, Device::Cpu);
        let weight = parameters.root().uniform("weight", &[2, 3, 4, 5], 1.0);
        let before = weight.detach().copy();
        let flat = Flat::new(&parameters);
        assert!(weight.equal(&before));
        assert_eq!(weight.stride(), [60, 1, 15, 3]);
        let inputs = flat.weights.narrow(0, 0, 3);
        assert!(inputs.equal(&before.select(0, 0).select(1, 0).select(1, 0)));
        let x = Tensor::ones([1, 3, 8, 8], (Kind::Float, Device::Cpu));
        x.conv2d(&weight, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1).sum(Kind::Float).backward();
        let expected = weight.grad().copy();
        let gradients = flat.gradients();
        Leaves::of(&parameters, &flat).gather_all(&gradients, false).unwrap();
        assert!(flat.slots[0].view(&gradients).equal(&expected));
    }

    #[test]
    fn weights_over_volumes_lie_with_their_inputs_side_by_side() {
        let mut parameters = Parameters::new(Key::new(1), Kind::Float, Device::Cpu);
        let weight = parameters.root().uniform("weight", &[2, 3, 2, 4, 5], 1.0);
        let before = weight.detach().copy();
        let flat = Flat::new(&parameters);
        assert!(weight.equal(&before));
        assert_eq!(weight.stride(), [120, 1, 60, 15, 3]);
        let x = Tensor::arange(3 * 4 * 8 * 8, (Kind::Float, Device::Cpu)).sin();
        let x = x.view([1, 3, 4, 8, 8]);
        let y = x.conv3d(&weight, None::<Tensor>, [1; 3], [0; 3], [1; 3], 1);
        (&y * &y).sum(Kind::Float).backward();
        let expected = weight.grad().copy();
        let gradients = flat.gradients();
        Leaves::of(&parameters, &flat).gather_all(&gradients, false).unwrap();
        assert!(flat.slots[0].view(&gradients).equal(&expected));
        assert!(!flat.slots[0].plain_view(&gradients).equal(&expected));
    }

    #[test]
    fn narrowed_weights_are_views_of_one_copy_and_get_the_gradient() {
        let parameters = Parameters::new(Key::new(1), Kind::Float, Device::Cpu);
        let mut parameters = parameters.computing_in(Kind::BFloat16);
        let mut root = parameters.root();
        let weight = root.uniform("weight", &[2, 3, 1, 1], 1.0);
        let narrowed = root.narrowed(&weight);
        let bias = root.uniform("bias", &[2], 1.0);
        let mut flat = Flat::new(&parameters);
        let _ = flat.weights.fill_(0.1);
        flat.renew_narrowed();
        assert!(
            narrowed
                .to_kind(Kind::Float)
                .equal(&weight.to_kind(Kind::BFloat16).to_kind(Kind::Float))
        );
        let leaves = Leaves::of(&parameters, &flat);
        let x = Tensor::ones([1, 3, 4, 4], (Kind::BFloat16, Device::Cpu));
        let y = x.conv2d(&narrowed, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);
        (y.to_kind(Kind::Float).sum(Kind::Float) + bias.sum(Kind::Float)).backward();
        let gradients = flat.gradients();
        leaves.gather_all(&gradients, false).unwrap();
        assert!(flat.slots[0].view(&gradients).equal(&(weight.ones_like() * 16.0)));
        assert!(flat.slots[1].view(&gradients).equal(&bias.ones_like()));
        (weight.sum(Kind::Float) + narrowed.sum(Kind::Float)).backward();
        assert!(
            leaves.gather_all(&gradients, false).is_err(),
            "one of two gradients would be lost"
        );
    }

    #[test]
    fn buffers_are_views_of_one_tensor_for_each_kind() {
        let mut parameters = Parameters::new(Key::new(1), Kind::Float, Device::Cpu);
        let mut root = parameters.root();
        let mean = root.buffer("mean", &[3], 2.0);
        let count = root.counter("count");
        let variance = root.buffer("variance", &[2], 1.0);
        let flat = Flat::new(&parameters);
        assert_eq!(flat.buffers.len(), 2);
        assert_eq!(Vec::<f32>::try_from(&mean).unwrap(), [2.0; 3]);
        flat.buffers.iter().for_each(|all| drop(all.shallow_clone().fill_(7)));
        for tensor in [mean, count, variance] {
            assert!(tensor.eq(7).all().int64_value(&[]) == 1);
        }
    }

    #[test]
    fn a_place_that_is_like_another_begins_with_its_values() {
        let mut parameters = Parameters::new(Key::new(1), Kind::Float, Device::Cpu);
        let mut root = parameters.root();
        let mut model = root.sub("model");
        let of = |mut scope: Scope<'_>| scope.sub("a").uniform("weight", &[4], 1.0);
        let [first, copy, other] =
            [of(model.sub("0")), of(model.sub_like("1", "0")), of(model.sub("1"))];
        assert!(first.equal(&copy) && !first.equal(&other));
        let _ = tch::no_grad(|| copy.shallow_clone().fill_(2.0));
        assert!(!first.equal(&copy), "they share their memory");
        let names: Vec<&str> = parameters.entries().iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names[..2], ["model.0.a.weight", "model.1.a.weight"]);
    }

    #[test]
    fn initial_values_depend_on_name_and_seed_only() {
        let (parameters, a, _) = two_tensors();
        let (_, again, _) = two_tensors();
        assert!(a.equal(&again));
        assert_eq!(parameters.entries()[0].name, "a.weight");
        assert_eq!(parameters.trainable_count(), 17);
        assert!(f64::try_from(a.abs().max()).unwrap() <= 0.5);
    }
}
