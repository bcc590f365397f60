//! Text files as people save them: UTF-8 or UTF-16, with or without a byte order mark.

use crate::TextError;

/// How files begin that are no text, what they are, and how to make text of them.
const OTHER_KINDS: [(&[u8], &str); 7] = [
    (b"\x1f\x8b", "compressed with gzip; unpack it first: gunzip -k FILE"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first: unzstd FILE"),
    (b"BZh", "compressed with bzip2; unpack it first: bunzip2 -k FILE"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first: unxz -k FILE"),
    (b"PK\x03\x04", "a zip archive; unpack it first: unzip FILE"),
    (
        b"PAR1",
        "a Parquet file; write JSON Lines of it first, with pandas: \
         read_parquet(FILE).to_json(OUT, orient='records', lines=True)",
    ),
    (
        b"ARROW1",
        "an Arrow file; write JSON Lines of it first, with pandas: \
         read_feather(FILE).to_json(OUT, orient='records', lines=True)",
    ),
];

/// The text that the bytes of a file stand for, without a byte order mark.
///
/// ```
/// use bantam_text::decode_text;
/// assert_eq!(decode_text(b"\xef\xbb\xbfhello".to_vec())?, "hello");
/// assert_eq!(decode_text(b"\xff\xfeh\0i\0".to_vec())?, "hi");
/// # Ok::<(), bantam_text::TextError>(())
/// ```
///
/// # Errors
/// Bytes that are neither UTF-8 nor, after its byte order mark, UTF-16; the message says which line, or
/// what kind of file it is.
pub fn decode_text(mut bytes: Vec<u8>) -> Result<String, TextError> {
    let refused = |problem: String| TextError::NotText { problem };
    if let Some((_, kind)) = OTHER_KINDS.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Err(refused((*kind).to_owned()));
    }
    let read: Option<fn([u8; 2]) -> u16> = match bytes.as_slice() {
        [0xff, 0xfe, ..] => Some(u16::from_le_bytes),
        [0xfe, 0xff, ..] => Some(u16::from_be_bytes),
        _ => None,
    };
    if let Some(read) = read {
        let (units, rest) = bytes[2..].as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| read(*unit)).collect();
        return match String::from_utf16(&units) {
            Ok(text) if rest.is_empty() => Ok(text),
            _ => Err(refused("damaged UTF-16; save it as UTF-8".to_owned())),
        };
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..at];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        refused(format!(
            "line {line} is not UTF-8, from byte {at} of the file on; save it as UTF-8"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_encodings_are_undone() {
        for (bytes, expected) in [
            (&b"a\r\nb"[..], "a\r\nb"),
            (b"\xef\xbb\xbf", ""),
            ("\u{feff}é".as_bytes(), "é"),
            (b"\xff\xfe\xe9\0\x3d\xd8\0\xde", "é😀"),
            (b"\xfe\xff\0\xe9", "é"),
            (b"", ""),
        ] {
            assert_eq!(decode_text(bytes.to_vec()).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_text_is_named() {
        for (bytes, expected) in [
            (&b"one\ntwo \xe9\n"[..], "line 2 is not UTF-8, from byte 8"),
            (b"\xff\xfea", "damaged UTF-16"),
            (b"\xff\xfe\0\xd8", "damaged UTF-16"),
            (b"\x1f\x8b\x08", "gunzip"),
            (b"PAR1\x15", "read_parquet"),
            (b"PK\x03\x04", "unzip"),
        ] {
            let error = decode_text(bytes.to_vec()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
