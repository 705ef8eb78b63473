//! Strings as packed files store them: of a fixed length, or in old files of any.
//!
//! Knows no names of attributes.

use hdf5::H5Type;
use hdf5::types::{FixedUnicode, VarLenUnicode};
use std::string::FromUtf8Error;

/// A string as a file stores it.
pub(super) trait Text: H5Type + Clone {
    /// Its text; the library does not look whether the bytes are any.
    fn text(&self) -> Result<String, FromUtf8Error>;
}

impl<const N: usize> Text for FixedUnicode<N> {
    fn text(&self) -> Result<String, FromUtf8Error> {
        String::from_utf8(self.as_bytes().to_vec())
    }
}

impl Text for VarLenUnicode {
    fn text(&self) -> Result<String, FromUtf8Error> {
        String::from_utf8(self.as_bytes().to_vec())
    }
}
