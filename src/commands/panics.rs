//! What a library's panic becomes for whoever reads it: one sentence instead of frames of C++.
//!
//! Panics of this program's own are bugs, and are told as Rust tells them.

use crate::error::Failure;

/// How tch reports what libtorch threw, inside the message of a panic.
const THROWN: &str = "Torch(\"";

/// The failure behind a panic, where libtorch threw it.
pub fn thrown_by_libtorch(message: &str) -> Option<Failure> {
    let (_, thrown) = message.split_once(THROWN)?;
    // Rust's debug text: lines end with a backslash and an n, and frames follow the first.
    let line = thrown.split("\\n").next().unwrap_or_default().trim_end_matches(['"', ')']);
    let line = line.replace("\\\"", "\"");
    // `[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: …`
    let sentence = line.rsplit_once("] ").map_or(line.as_str(), |(_, sentence)| sentence);
    let is_memory = ["memory", "alloc"].iter().any(|word| line.contains(word));
    let failure =
        Failure::new(format!("libtorch cannot go on: {}", sentence.trim_end_matches('.')));
    Some(if is_memory {
        failure.hint(
            "use a smaller `train.batch_size` or `data.size`, or a larger `train.micro_batches`",
        )
    } else {
        failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_one_sentence_with_a_way_out() {
        let message = r#"called `Result::unwrap()` on an `Err` value: Torch("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 80000000000 bytes. Error code 12 (Cannot allocate memory)\nframe #0: c10::ThrowEnforceNotMet(char const*)")"#;
        insta::assert_snapshot!(thrown_by_libtorch(message).unwrap(), @r"
        error: libtorch cannot go on: err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 80000000000 bytes. Error code 12 (Cannot allocate memory
        ");
        let message = r#"called `Result::unwrap()` on an `Err` value: Torch("CUDA out of memory. Tried to allocate 2.00 GiB.")"#;
        insta::assert_snapshot!(thrown_by_libtorch(message).unwrap(), @"");
        assert!(thrown_by_libtorch("index out of bounds").is_none());
    }
}
