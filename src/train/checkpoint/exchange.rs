//! Weights for use elsewhere, and from elsewhere: one safetensors file with the names of the
//! reference networks' state dictionaries.

use super::{Checkpoint, buffer_name, flat_name, load};
use crate::comm::Solo;
use crate::error::{Context, Exit, Failure, Result};
use crate::files::{self, FreshFile};
use crate::limits::TENSOR_TABLE_BYTES;
use crate::parameters::{Entry, Slot};
use crate::train::learner::Learner;
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// How many names of one kind a failure lists.
const LISTED: usize = 5;

impl Checkpoint {
    /// Writes weights and buffers of the first learner as one safetensors file, under the names
    /// of the reference network's state dictionary. Equal checkpoints give equal bytes.
    pub fn export(&self, to: &Path) -> Result<()> {
        let loaded = load(&self.path, &Solo)?;
        let lacks =
            |what: &str| Failure::new(format!("checkpoint `{}` lacks {what}", self.path.display()));
        let table = self.manifest.learners.first().ok_or_else(|| lacks("a learner"))?;
        let weights = flat_name(&table.name, "weights");
        let shares: Vec<Tensor> =
            loaded.shards().map(|shard| shard.tensor(&weights)).collect::<Result<_>>()?;
        let weights = Tensor::f_cat(&shares, 0).context(|| "cannot join the shards")?;
        let first = loaded.shards().next().ok_or_else(|| lacks("a shard"))?;
        let mut exported = Vec::new();
        for place in &table.parameters {
            let slot =
                Slot { name: place.name.clone(), shape: place.shape.clone(), offset: place.offset };
            let is_plain = self.manifest.is_plain();
            let view = if is_plain { slot.plain_view(&weights) } else { slot.view(&weights) };
            exported.push((place.name.clone(), view.contiguous()));
        }
        for name in &table.buffers {
            exported.push((name.clone(), first.tensor(&buffer_name(&table.name, name))?));
        }
        write(&exported, to)
    }
}

/// Whether a file that begins like this holds tensors: the length of a table, then the table.
fn is_safetensors(start: &[u8]) -> bool {
    let length = start.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    length <= TENSOR_TABLE_BYTES && start.get(8) == Some(&b'{')
}

/// Replaces the file `to` by one with these tensors. Refuses what is there and holds none.
fn write(tensors: &[(String, Tensor)], to: &Path) -> Result<()> {
    let refused = || format!("cannot write `{}`", to.display());
    files::refuse_foreign(to, is_safetensors).context(refused).map_err(|failure| {
        failure.exit_with(Exit::Usage).hint(
            "name another file, for example `--to weights.safetensors`, or remove this one first",
        )
    })?;
    let fresh = FreshFile::beside(to).context(refused)?;
    Tensor::write_safetensors(tensors, fresh.partial()).context(refused)?;
    fresh.take_place_durably().context(refused)
}

/// Gives the networks of a learner the weights and buffers of a safetensors file that holds exactly
/// their state dictionary. Moments and the number of updates stay as they are.
pub fn import(learner: &Learner, from: &Path) -> Result<()> {
    let file = from.display();
    // What is no file is refused before anybody waits for it.
    files::open(from).context(|| format!("cannot read `{file}`"))?;
    let tensors = Tensor::read_safetensors(from)
        .context(|| format!("cannot read `{file}`"))
        .map_err(|failure| failure.hint("it has to be a safetensors file"))?;
    let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let differences = differences(learner.entries(), &tensors);
    if !differences.is_empty() {
        return Err(Failure::usage(format!(
            "`{file}` is not the state dictionary of `{}`",
            learner.name()
        ))
        .at(differences.join("\n"))
        .hint("`scrimp checkpoint export` writes such a file, and docs/concepts/checkpoints.md says how PyTorch does"));
    }
    for entry in learner.entries() {
        let mut target = entry.tensor.detach();
        tch::no_grad(|| target.f_copy_(&tensors[&entry.name]))
            .context(|| format!("cannot import `{}`", entry.name))?;
    }
    learner.weights_were_set();
    Ok(())
}

/// What distinguishes a file from the tensors that are expected, one line for each kind.
fn differences(expected: &[Entry], found: &BTreeMap<String, Tensor>) -> Vec<String> {
    let missing = expected.iter().filter(|entry| !found.contains_key(&entry.name));
    let missing = missing.map(|entry| format!("`{}`", entry.name)).collect();
    let is_known = |name: &String| expected.iter().any(|entry| entry.name == *name);
    let unexpected = found.keys().filter(|name| !is_known(name));
    let unexpected = unexpected.map(|name| format!("`{name}`")).collect();
    let other_shape = expected.iter().filter_map(|entry| {
        let (shape, expected) = (found.get(&entry.name)?.size(), entry.tensor.size());
        (shape != expected)
            .then(|| format!("`{}` with shape {shape:?}, expected {expected:?}", entry.name))
    });
    let kinds: [(&str, Vec<String>); 3] =
        [("lacks", missing), ("also holds", unexpected), ("holds", other_shape.collect())];
    let listed = kinds.into_iter().filter(|(_, names)| !names.is_empty());
    listed.map(|(what, names)| format!("  it {what} {}", shortened(&names))).collect()
}

fn shortened(names: &[String]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
