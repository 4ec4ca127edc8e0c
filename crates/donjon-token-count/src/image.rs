//! How large an image is.

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Size {
    fn new(width: impl Into<u32>, height: impl Into<u32>) -> Option<Self> {
        let (width, height) = (width.into(), height.into());
        (width > 0 && height > 0).then_some(Self { width, height })
    }

    /// The size of the image that a `data:` URL holds, as the head of a PNG, JPEG, GIF or WebP file
    /// says. `None` for any other address.
    pub(crate) fn of_url(url: &str) -> Option<Self> {
        let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
        if !head.to_ascii_lowercase().ends_with(";base64") {
            return None;
        }
        Self::of_file(&Base64(data.as_bytes()))
    }

    fn of_file(file: &Base64<'_>) -> Option<Self> {
        let head: [u8; 30] = file.bytes(0)?;
        let be16 = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let be32 =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let le16 = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let le24 = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], 0]);
        match &head {
            [0x89, b'P', b'N', b'G', ..] => Self::new(be32(16), be32(20)),
            [b'G', b'I', b'F', b'8', ..] => Self::new(le16(6), le16(8)),
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                kind @ ..,
            ] => match &kind[..4] {
                b"VP8 " => Self::new(le16(26) & 0x3FFF, le16(28) & 0x3FFF),
                b"VP8L" => {
                    let bits = le24(21) | u32::from(head[24]) << 24;
                    Self::new((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
                }
                b"VP8X" => Self::new(le24(24) + 1, le24(27) + 1),
                _ => None,
            },
            [0xFF, 0xD8, ..] if be16(0) == 0xFFD8 => Self::of_jpeg(file),
            _ => None,
        }
    }

    /// Goes from segment to segment up to the one that begins the frame.
    fn of_jpeg(file: &Base64<'_>) -> Option<Self> {
        let mut at = 2;
        // Real files have some ten segments; who sends more is not read on.
        for _ in 0..200 {
            let [mark, kind]: [u8; 2] = file.bytes(at)?;
            if mark != 0xFF {
                return None;
            }
            match kind {
                0xFF => at += 1,
                0x01 | 0xD0..=0xD8 => at += 2,
                0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                    let [_, _, _, h1, h0, w1, w0]: [u8; 7] = file.bytes(at + 2)?;
                    return Self::new(u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0]));
                }
                _ => {
                    let length = u16::from_be_bytes(file.bytes(at + 2)?);
                    at += 2 + usize::from(length.max(2));
                }
            }
        }
        None
    }
}

/// A base64 text, of which single bytes are read.
struct Base64<'a>(&'a [u8]);

impl Base64<'_> {
    /// `N` bytes from `at` on.
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = self.byte(at + n)?;
        }
        Some(bytes)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        let group = at / 3 * 4;
        let six = |n: usize| self.0.get(group + n).copied().and_then(digit);
        match at % 3 {
            0 => Some(six(0)? << 2 | six(1)? >> 4),
            1 => Some(six(1)? << 4 | six(2)? >> 2),
            _ => Some(six(2)? << 6 | six(3)?),
        }
    }
}

/// The six bits of a digit, also in the alphabet for URLs.
fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(file: &[u8]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut url = String::from("data:image/any;base64,");
        for group in file.chunks(3) {
            let bits = group
                .iter()
                .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
            let bits = bits << (8 * (3 - group.len()));
            for n in 0..=group.len() {
                url.push(char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize]));
            }
        }
        url
    }

    fn padded(head: &[u8]) -> Vec<u8> {
        let mut file = head.to_vec();
        file.resize(file.len().max(64), 0);
        file
    }

    pub(crate) fn png(width: u32, height: u32) -> String {
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        file.extend(width.to_be_bytes());
        file.extend(height.to_be_bytes());
        url(&padded(&file))
    }

    #[test]
    fn the_heads_of_four_formats_are_read() {
        let size = |file: &[u8]| Size::of_url(&url(&padded(file))).map(|s| (s.width, s.height));
        assert_eq!(
            Size::of_url(&png(640, 480)).map(|s| (s.width, s.height)),
            Some((640, 480))
        );
        assert_eq!(size(b"GIF89a\x80\x02\xe0\x01"), Some((640, 480)));
        let vp8 = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01";
        assert_eq!(size(vp8), Some((640, 480)));
        let vp8x = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x7f\x02\0\xdf\x01\0";
        assert_eq!(size(vp8x), Some((640, 480)));
        // 639 in the low 14 bits, 479 in the next.
        let bits: u32 = 639 | 479 << 14;
        let mut vp8l = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f".to_vec();
        vp8l.extend(bits.to_le_bytes());
        assert_eq!(size(&vp8l), Some((640, 480)));
        // A segment of 20 bytes, then a progressive frame.
        let mut jpeg = b"\xff\xd8\xff\xe0\0\x14".to_vec();
        jpeg.extend([0; 18]);
        jpeg.extend(b"\xff\xc2\0\x11\x08\x01\xe0\x02\x80");
        assert_eq!(size(&jpeg), Some((640, 480)));
    }

    #[test]
    fn what_is_no_image_has_no_size() {
        for url in [
            "https://example.com/castle.png",
            "data:image/png;base64,",
            "data:image/png;base64,iVBORw0KGgo=",
            "data:image/png,iVBORw0KGgoiVBORw0KGgoiVBORw0KGgoiVBORw0KGgo",
            "data:",
        ] {
            assert_eq!(Size::of_url(url), None, "{url}");
        }
        assert_eq!(Size::of_url(&png(0, 480)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(file in prop::collection::vec(any::<u8>(), 0..300), kind in 0..4_usize) {
            let heads: [&[u8]; 4] = [b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"\x89PNG", b""];
            let file = [heads[kind], &file[..]].concat();
            let _ = Size::of_url(&url(&file));
        }
    }
}
