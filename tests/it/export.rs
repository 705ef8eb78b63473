//! Exported weights are what users of PyTorch expect: names and shapes of WSL4MIS' U-Net.

use crate::cli::{complaint, scrimp};
use crate::running::{SMOKE, Train};
use crate::skips::skipped;
use safetensors::{Dtype, SafeTensors};
use scrimp::comm::{Ranks, Solo};
use scrimp::config;
use scrimp::methods::{Passes, Setup, find};
use scrimp::random::Key;
use scrimp::train::checkpoint::load;
use scrimp::train::learner::{LearnerSetup, Moments};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tch::{Device, Kind, Tensor};
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
fn exports_of_one_checkpoint_are_equal_byte_by_byte_and_replace_files_alone() {
    let folder = TempDir::new().unwrap();
    let run = trained(folder.path());
    let [first, second] = ["first", "second"].map(|name| export(&run, &folder.path().join(name)));
    assert!(first == second);
    let thesis = folder.path().join("thesis.txt");
    std::fs::write(&thesis, "precious").unwrap();
    for to in [folder.path(), &thesis] {
        let [from, to] = [&run, to].map(|path| path.to_str().unwrap());
        for command in [&["checkpoint", "export", from][..], &["evaluate", from]] {
            let refused = complaint(&scrimp(&[command, &["--to", to]].concat()));
            let expected = format!("cannot write `{to}`\n  caused by: it ");
            assert!(refused.contains(&expected), "{refused}");
        }
    }
    assert_eq!(std::fs::read(&thesis).unwrap(), b"precious");
}

/// Runs a script with `unet.py` at hand; `None`, said on stdout, where there is no PyTorch.
fn pytorch(script: &str, arguments: &[&Path]) -> Option<()> {
    let Ok(python) = std::env::var("SCRIMP_BENCH_PYTHON") else {
        skipped("SCRIMP_BENCH_PYTHON names no Python with torch and safetensors");
        return None;
    };
    let output = Command::new(python)
        .args(["-c", script])
        .args(arguments)
        .env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/pytorch"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// The class probabilities of the method of the smoke configuration with the weights of a run.
fn probabilities(run: &Path, image: &Tensor) -> Tensor {
    let config = config::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SMOKE), &[]).unwrap();
    let definition = find(&config.method.name).unwrap();
    let learner = LearnerSetup {
        key: Key::new(1),
        kind: Kind::Float,
        computed: Kind::Float,
        device: Device::Cpu,
        moments: Moments::Whole,
    };
    let setup = Setup {
        learner,
        classes: CLASSES as i64,
        channels: 1,
        passes: Passes::new(false, None),
        slices: Vec::new(),
        sample: [1, 0, 0],
        spacing_mm: None,
        levels: Vec::new(),
    };
    let method = (definition.build)(&(definition.check)(&config).unwrap(), &setup).unwrap();
    let last = run.join(format!("checkpoints/step-{STEPS:08}"));
    load(&last, &Solo).unwrap().restore(method.learners(), &Ranks::alone()).unwrap();
    method.predict(image).unwrap()
}

#[test]
fn pytorch_loads_an_export_strictly_and_computes_the_same_probabilities() {
    let folder = TempDir::new().unwrap();
    let [weights, pair] =
        ["weights", "pair"].map(|name| folder.path().join(name).with_extension("safetensors"));
    let run = trained(folder.path());
    export(&run, &weights);
    let image = Tensor::linspace(0.0, 1.0, 2 * 64 * 64, (Kind::Float, Device::Cpu));
    let image = image.square().view([2, 1, 64, 64]);
    let found = probabilities(&run, &image).contiguous();
    Tensor::write_safetensors(&[("image", image), ("probabilities", found)], &pair).unwrap();
    let script = "import sys, torch, safetensors.torch, unet\n\
                  net = unet.UNet().eval()\n\
                  net.load_state_dict(safetensors.torch.load_file(sys.argv[1]), strict=True)\n\
                  pair = safetensors.torch.load_file(sys.argv[2])\n\
                  with torch.no_grad(): found = net(pair['image']).softmax(1)\n\
                  assert found.std() > 0.01, found\n\
                  difference = (found - pair['probabilities']).abs().max().item()\n\
                  assert difference < 1e-5, difference";
    pytorch(script, &[&weights, &pair]);
}

fn import(from: &Path, run: &Path) -> Output {
    let [from, run] = [from, run].map(|path| path.to_str().unwrap());
    scrimp(&["checkpoint", "import", SMOKE, "--from", from, "--run", run])
}

#[test]
fn weights_of_pytorch_train_on() {
    let folder = TempDir::new().unwrap();
    let [weights, back] =
        ["weights", "back"].map(|name| folder.path().join(name).with_extension("safetensors"));
    let script = "import sys, safetensors.torch, unet\n\
                  safetensors.torch.save_file(unet.UNet().state_dict(), sys.argv[1])";
    if pytorch(script, &[&weights]).is_none() {
        return;
    }
    let run = folder.path().join("run");
    let imported = import(&weights, &run);
    assert!(imported.status.success(), "{}", complaint(&imported));
    let (bytes, written) = (export(&run, &back), fs::read(&weights).unwrap());
    let [ours, theirs] = [&bytes, &written].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (name, tensor) in ours.iter() {
        assert!(tensor == theirs.tensor(name).unwrap(), "{name}");
    }
    let ended = Train::again(&run).under_mpirun(2).succeed();
    assert_eq!(ended.resumed_from(), Some(0));
    assert_eq!(ended.steps().len(), 6);
}

#[test]
fn an_import_of_an_export_is_the_same_again() {
    let folder = TempDir::new().unwrap();
    let [weights, back] = ["weights", "back"].map(|name| folder.path().join(name));
    let bytes = export(&trained(folder.path()), &weights);
    let run = folder.path().join("imported");
    let imported = import(&weights, &run);
    assert!(imported.status.success(), "{}", complaint(&imported));
    assert!(export(&run, &back) == bytes);
    let twice = import(&weights, &run);
    let said = complaint(&twice).replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(said, @r"
    exit code 2
    error: `FOLDER/imported` has checkpoints already, expected none

    hint: choose another directory with `--run DIR`
    ");
}

#[test]
fn an_import_of_something_else_says_what_differs() {
    let folder = TempDir::new().unwrap();
    let weights = folder.path().join("weights");
    let tensor = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let found = [
        ("decoder.out_conv.bias", tensor(&[7])),
        ("decoder.out_conv.weight", tensor(&[4, 16, 3, 3])),
        ("module.encoder.weight", tensor(&[2])),
    ];
    Tensor::write_safetensors(&found, &weights).unwrap();
    let refused = complaint(&import(folder.path(), &folder.path().join("run")));
    assert!(refused.contains("it is a folder, expected a file"), "{refused}");
    let refused = import(&weights, &folder.path().join("run"));
    let said = complaint(&refused).replace(folder.path().to_str().unwrap(), "FOLDER");
    insta::assert_snapshot!(said, @r"
    exit code 2
    error: `FOLDER/weights` is not the state dictionary of `segmenter`
      it lacks `encoder.in_conv.conv_conv.0.weight`, `encoder.in_conv.conv_conv.0.bias`, `encoder.in_conv.conv_conv.1.weight`, `encoder.in_conv.conv_conv.1.bias`, `encoder.in_conv.conv_conv.1.running_mean` and 129 more
      it also holds `module.encoder.weight`
      it holds `decoder.out_conv.bias` with shape [7], expected [4]

    hint: `scrimp checkpoint export` writes such a file, and docs/concepts/checkpoints.md says how PyTorch does
    ");
}
