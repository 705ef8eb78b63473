//! Runs of equal bytes, as TIFF and DICOM pack them (PackBits).
//!
//! Unpacks no more bytes than are asked for; knows no files.

/// The first `count` bytes that `packed` holds; fewer where it is damaged or holds no more.
///
/// Each run is a length and so many bytes, or a negative length and the byte that repeats.
pub(super) fn unpack(mut packed: &[u8], count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [length, rest @ ..] = packed {
        if bytes.len() >= count {
            break;
        }
        packed = match (*length as i8, rest) {
            (-128, rest) => rest,
            (length, [byte, rest @ ..]) if length < 0 => {
                let run = usize::from(length.unsigned_abs()) + 1;
                bytes.resize(bytes.len() + run, *byte);
                rest
            }
            (length, rest) => {
                let (run, rest) = rest.split_at(rest.len().min(length.unsigned_abs() as usize + 1));
                bytes.extend_from_slice(run);
                rest
            }
        };
    }
    bytes.truncate(count);
    bytes
}

#[cfg(test)]
mod tests {
    use super::unpack;

    #[test]
    fn runs_are_undone() {
        // The example of Apple's note.
        let packed = [0xfe, 0xaa, 2, 0x80, 0, 0x2a, 0xfd, 0xaa, 3, 0x80, 0, 0x2a, 0x22, 0xf7, 0xaa];
        let plain = unpack(&packed, 24);
        assert_eq!((plain.len(), &plain[..7]), (24, &[0xaa, 0xaa, 0xaa, 0x80, 0, 0x2a, 0xaa][..]));
        assert_eq!(unpack(&packed, 5), plain[..5]);
        for length in 0..packed.len() {
            assert!(plain.starts_with(&unpack(&packed[..length], 24)));
        }
    }
}
