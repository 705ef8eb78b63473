//! Event files as TensorBoard reads them: records with checksums around protocol buffers.
//!
//! Of `tensorflow.Event` and `tensorflow.Summary` only the few fields that scalars and images need
//! are written, by hand: field numbers are from `tensorboard/compat/proto/{event,summary}.proto`.

use super::crc::masked;
use super::undone::Rewinds;
use super::{for_each_record, logs};
use crate::error::{Context, Result};
use crate::files::FreshFile;
use crate::runlog::directory::RunDirectory;
use crate::runlog::preview::Preview;
use crate::runlog::{Evaluated, Record, RunEvent, Step};
use crate::watch::harmless;
use crate::watch::picture::overlays;
use std::collections::BTreeMap;
use std::io::{BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};

/// A value of a summary.
enum Value {
    Scalar(f64),
    /// Columns, rows and an encoded PNG.
    Image([u32; 2], Vec<u8>),
}

/// Writes event files into `folder`: the run's own in it, those of ranks in folders of their own,
/// which TensorBoard shows as runs of their own. Gives their paths. Steps that were undone because the run
/// went on from an earlier one are left out, as are pictures that cannot be read.
pub fn tensorboard(directory: &RunDirectory, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: BTreeMap<Option<u32>, EventFile> = BTreeMap::new();
    let mut times_ms: BTreeMap<u64, u64> = BTreeMap::new();
    let logs = logs(directory)?;
    let mut rewinds = Rewinds::default();
    for_each_record(&logs, |record| {
        rewinds.learn(&record);
        Ok(())
    })?;
    let mut reading = rewinds.again();
    for_each_record(&logs, |record| {
        if reading.is_undone(&record) == Some(true) {
            return Ok(());
        }
        let Record { time_ms, rank, event } = record;
        let (place, step, values) = match event {
            RunEvent::Step(step) => (None, step.step, of_step(step)),
            RunEvent::Evaluated(scores) => {
                times_ms.insert(scores.step, time_ms);
                (None, scores.step, of_scores(scores))
            }
            RunEvent::Health(health) => {
                let mut values = vec![
                    ("health/step_ms".to_owned(), health.step_ms),
                    ("health/data_wait_ms".to_owned(), health.data_wait_ms),
                    ("health/communication_ms".to_owned(), health.communication_ms),
                ];
                let bytes = health.memory_bytes.map(|bytes| bytes as f64);
                values.extend(bytes.map(|bytes| ("health/memory_bytes".to_owned(), bytes)));
                (Some(rank), health.step, values)
            }
            _ => return Ok(()),
        };
        let scalar = |(tag, value)| (tag, Value::Scalar(value));
        let values: Vec<(String, Value)> = values.into_iter().map(scalar).collect();
        file(&mut files, folder, place)?.write((time_ms, step), &values)
    })?;
    write_pictures(directory, &times_ms, file(&mut files, folder, None)?)?;
    files.into_values().map(EventFile::close).collect()
}

fn file<'a>(
    files: &'a mut BTreeMap<Option<u32>, EventFile>,
    folder: &Path,
    rank: Option<u32>,
) -> Result<&'a mut EventFile> {
    use std::collections::btree_map::Entry;
    match files.entry(rank) {
        Entry::Occupied(known) => Ok(known.into_mut()),
        Entry::Vacant(place) => {
            let folder = match rank {
                Some(rank) => folder.join(format!("rank-{rank:04}")),
                None => folder.to_owned(),
            };
            Ok(place.insert(EventFile::create(&folder)?))
        }
    }
}

fn of_step(step: Step) -> Vec<(String, f64)> {
    let named = |group: &'static str, values: BTreeMap<String, f64>| {
        values.into_iter().map(move |(name, value)| (format!("{group}/{name}"), value))
    };
    let mut values: Vec<(String, f64)> = named("loss", step.loss).collect();
    values.extend(named("observed", step.observed));
    values.extend(named("lr", step.lr));
    values.extend(named("grad_norm", step.grad_norm));
    values.push(("speed/step_ms".to_owned(), step.step_ms));
    values.push(("speed/images_per_second".to_owned(), step.images_per_second));
    values
}

fn of_scores(scores: Evaluated) -> Vec<(String, f64)> {
    let mut values = vec![("dice/mean".to_owned(), scores.mean_dice)];
    for structure in scores.structures {
        values.push((format!("dice/{}", structure.name), structure.dice));
        values.push((format!("hd95/{}", structure.name), structure.hd95));
        values.push((format!("asd/{}", structure.name), structure.asd));
    }
    values
}

/// The pictures of all evaluations; those of an unknown time are left out.
fn write_pictures(
    directory: &RunDirectory,
    times_ms: &BTreeMap<u64, u64>,
    file: &mut EventFile,
) -> Result<()> {
    for (&step, &time_ms) in times_ms {
        let folder = directory.previews().join(format!("step-{step:08}"));
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "png"));
        paths.sort();
        let mut values = Vec::new();
        for path in paths {
            // `worst-CASE` is `worst`: another case at each step, one picture to step through.
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let which = stem.split('-').next().unwrap_or_default();
            // A process that was killed leaves half of one: no reason to lose the others.
            let preview = match Preview::read(&path) {
                Ok(preview) => preview,
                Err(failure) => {
                    tracing::warn!("{}: left out", harmless(&failure.sentence()));
                    continue;
                }
            };
            let picture = overlays(&preview);
            let size = [picture.width(), picture.height()];
            let encoded = encode(size, picture.as_raw())
                .context(|| format!("cannot encode `{}`", path.display()))?;
            values.push((format!("previews/{which}"), Value::Image(size, encoded)));
        }
        if !values.is_empty() {
            file.write((time_ms, step), &values)?;
        }
    }
    Ok(())
}

fn encode(
    [columns, rows]: [u32; 2],
    pixels: &[u8],
) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, columns, rows);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// An event file under way.
struct EventFile {
    path: PathBuf,
    file: BufWriter<FreshFile>,
}

impl EventFile {
    /// Begins the file anew: exporting twice leaves one.
    fn create(folder: &Path) -> Result<Self> {
        let doing = || format!("cannot write event files into `{}`", folder.display());
        std::fs::create_dir_all(folder).context(doing)?;
        let path = folder.join("events.out.tfevents.0.scrimp");
        let file = BufWriter::new(FreshFile::beside(&path).context(doing)?);
        let mut event_file = Self { path, file };
        event_file.record(&bytes_field(3, b"brain.Event:2"))?;
        Ok(event_file)
    }

    /// Writes the values of one step.
    fn write(&mut self, (time_ms, step): (u64, u64), values: &[(String, Value)]) -> Result<()> {
        let summary: Vec<u8> = values
            .iter()
            .flat_map(|(tag, value)| {
                let mut fields = bytes_field(1, harmless(tag).as_bytes());
                match value {
                    Value::Scalar(value) => {
                        fields.push((2 << 3) | 5);
                        fields.extend((*value as f32).to_le_bytes());
                    }
                    Value::Image([columns, rows], encoded) => {
                        let mut image = number_field(1, u64::from(*rows));
                        image.extend(number_field(2, u64::from(*columns)));
                        image.extend(number_field(3, 3));
                        image.extend(bytes_field(4, encoded));
                        fields.extend(bytes_field(4, &image));
                    }
                }
                bytes_field(1, &fields)
            })
            .collect();
        let mut event = vec![(1 << 3) | 1];
        event.extend((time_ms as f64 / 1e3).to_le_bytes());
        event.extend(number_field(2, step));
        event.extend(bytes_field(5, &summary));
        self.record(&event)
    }

    /// Length, its checksum, the bytes, their checksum.
    fn record(&mut self, bytes: &[u8]) -> Result<()> {
        let length = (bytes.len() as u64).to_le_bytes();
        let (first, last) = (masked(&length).to_le_bytes(), masked(bytes).to_le_bytes());
        let parts = [&length[..], &first, bytes, &last];
        let written = parts.iter().try_for_each(|part| self.file.write_all(part));
        written.context(|| format!("cannot write `{}`", self.path.display()))
    }

    fn close(self) -> Result<PathBuf> {
        let doing = || format!("cannot write `{}`", self.path.display());
        let file = self.file.into_inner().map_err(IntoInnerError::into_error).context(doing)?;
        file.take_place().context(doing)?;
        Ok(self.path)
    }
}

/// A number as a protocol buffer writes it: seven bits in a byte, the lowest first.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number_field(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    bytes.extend(number(value));
    bytes
}

fn bytes_field(field: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(field << 3) | 2];
    bytes.extend(number(value.len() as u64));
    bytes.extend_from_slice(value);
    bytes
}
