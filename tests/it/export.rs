//! Exported weights are what users of PyTorch expect: names and shapes of WSL4MIS' U-Net.

use crate::cli::{complaint, scrimp};
use crate::running::{SMOKE, Train};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const CHANNELS: [usize; 5] = [16, 32, 64, 128, 256];
const CLASSES: usize = 4;
/// Steps of the run that is exported.
const STEPS: i64 = 2;

/// Names with kind and shape.
type Table = BTreeMap<String, (Dtype, Vec<usize>)>;

fn convolution(table: &mut Table, name: &str, [from, to, side]: [usize; 3]) {
    table.insert(format!("{name}.weight"), (Dtype::F32, vec![to, from, side, side]));
    table.insert(format!("{name}.bias"), (Dtype::F32, vec![to]));
}

fn normalisation(table: &mut Table, name: &str, channels: usize) {
    for tensor in ["weight", "bias", "running_mean", "running_var"] {
        table.insert(format!("{name}.{tensor}"), (Dtype::F32, vec![channels]));
    }
    table.insert(format!("{name}.num_batches_tracked"), (Dtype::I64, vec![]));
}

/// Two convolutions with normalisation, numbered as in the reference's `Sequential`.
fn block(table: &mut Table, name: &str, from: usize, to: usize) {
    for (number, from) in [(0, from), (4, to)] {
        convolution(table, &format!("{name}.conv_conv.{number}"), [from, to, 3]);
        normalisation(table, &format!("{name}.conv_conv.{}", number + 1), to);
    }
}

/// The state dictionary of the U-Net of HiLab-git/WSL4MIS at a594da8.
fn state_dictionary() -> Table {
    let mut table = Table::new();
    block(&mut table, "encoder.in_conv", 1, CHANNELS[0]);
    for level in 1..5 {
        let name = format!("encoder.down{level}.maxpool_conv.1");
        block(&mut table, &name, CHANNELS[level - 1], CHANNELS[level]);
        let (from, to) = (CHANNELS[5 - level], CHANNELS[4 - level]);
        convolution(&mut table, &format!("decoder.up{level}.conv1x1"), [from, to, 1]);
        block(&mut table, &format!("decoder.up{level}.conv"), 2 * to, to);
    }
    convolution(&mut table, "decoder.out_conv", [CHANNELS[0], CLASSES, 3]);
    table
}

fn trained(folder: &Path) -> PathBuf {
    let run = folder.join("run");
    Train::new(SMOKE, &run).set(&format!("train.total_steps={STEPS}")).succeed();
    run
}

fn export(run: &Path, to: &Path) -> Vec<u8> {
    let [from, file] = [run, to].map(|path| path.to_str().unwrap());
    let output = scrimp(&["checkpoint", "export", from, "--to", file]);
    assert!(output.status.success(), "{}", complaint(&output));
    fs::read(to).unwrap()
}

#[test]
fn an_export_has_the_names_and_shapes_of_the_reference() {
    let folder = TempDir::new().unwrap();
    let bytes = export(&trained(folder.path()), &folder.path().join("weights.safetensors"));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let describe = |(name, tensor): (&str, safetensors::tensor::TensorView<'_>)| {
        (name.to_owned(), (tensor.dtype(), tensor.shape().to_vec()))
    };
    let expected = state_dictionary();
    assert_eq!(expected.values().filter(|(kind, _)| *kind == Dtype::F32).count(), 118);
    assert_eq!(tensors.iter().map(describe).collect::<Table>(), expected);
    for (name, tensor) in tensors.iter().filter(|(_, tensor)| tensor.dtype() == Dtype::I64) {
        assert_eq!(tensor.data(), STEPS.to_le_bytes(), "{name}");
    }
}

#[test]
fn exports_of_one_checkpoint_are_equal_byte_by_byte() {
    let folder = TempDir::new().unwrap();
    let run = trained(folder.path());
    let [first, second] = ["first", "second"].map(|name| export(&run, &folder.path().join(name)));
    assert!(first == second);
}

#[test]
fn pytorch_loads_an_export_strictly() {
    let Ok(python) = std::env::var("SCRIMP_BENCH_PYTHON") else {
        println!("skipped: SCRIMP_BENCH_PYTHON names no Python with torch and safetensors");
        return;
    };
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("weights.safetensors");
    export(&trained(folder.path()), &file);
    let script = "import sys, safetensors.torch, unet\n\
                  weights = safetensors.torch.load_file(sys.argv[1])\n\
                  unet.UNet().load_state_dict(weights, strict=True)";
    let output = Command::new(python)
        .args(["-c", script, file.to_str().unwrap()])
        .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/pytorch"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
