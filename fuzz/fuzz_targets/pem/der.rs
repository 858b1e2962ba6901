//! DER as a tree: one element is changed, and all lengths are right again.

const CONSTRUCTED: u8 = 0x20;
const OCTET_STRING: u8 = 4;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Tags that occur in certificates: a value of another kind where one is expected.
const TAGS: [u8; 16] =
    [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0c, 0x13, 0x16, 0x17, 0x18, 0x1e, 0x30, 0x31, 0x82, 0xa0];

struct Element {
    tag: u8,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    /// Also what an octet string wraps, as extensions do.
    Elements(Vec<Element>),
}

/// The same DER with one element changed; `None` if it is none.
pub fn mutate(der: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut elements = parse(der, 0)?;
    let mut random = Random(u64::from(seed) << 16 | 0x9e37);
    let mut left = random.below(count(&elements));
    change(&mut elements, &mut left, &mut random);
    let mut out = Vec::with_capacity(der.len() + 64);
    elements.iter().for_each(|element| write(element, &mut out));
    Some(out)
}

fn parse(mut bytes: &[u8], depth: u8) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    while let [tag, length, rest @ ..] = bytes {
        let long = usize::from(length & 0x7f);
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            0x81 | 0x82 => {
                let (digits, rest) = rest.split_at_checked(long)?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let inner = if (tag & CONSTRUCTED != 0 || *tag == OCTET_STRING) && depth < 20 {
            parse(content, depth + 1)
        } else {
            None
        };
        let content = inner.map_or_else(|| Content::Bytes(content.to_vec()), Content::Elements);
        elements.push(Element { tag: *tag, content });
        bytes = rest;
    }
    bytes.is_empty().then_some(elements)
}

fn count(elements: &[Element]) -> usize {
    let inner = |element: &Element| match &element.content {
        Content::Elements(inner) => count(inner),
        Content::Bytes(_) => 0,
    };
    elements.iter().map(|element| 1 + inner(element)).sum()
}

/// Changes the element that has `left` others before it; whether it was in here.
fn change(elements: &mut Vec<Element>, left: &mut usize, random: &mut Random) -> bool {
    for at in 0..elements.len() {
        if *left == 0 {
            change_at(elements, at, random);
            return true;
        }
        *left -= 1;
        if let Content::Elements(inner) = &mut elements[at].content
            && change(inner, left, random)
        {
            return true;
        }
    }
    false
}

fn change_at(elements: &mut Vec<Element>, at: usize, random: &mut Random) {
    match random.below(8) {
        0 => _ = elements.remove(at),
        1 => {
            let again = copy(&elements[at]);
            elements.insert(at, again);
        }
        2 => {
            let other = random.below(elements.len());
            elements.swap(at, other);
        }
        3 => elements[at].tag = TAGS[random.below(TAGS.len())],
        4 => elements[at].content = Content::Bytes(Vec::new()),
        _ => {
            let mut bytes = Vec::new();
            match &elements[at].content {
                Content::Bytes(old) => bytes.clone_from(old),
                Content::Elements(inner) => inner.iter().for_each(|element| write(element, &mut bytes)),
            }
            for _ in 0..=random.below(3) {
                let place = random.below(bytes.len().max(1));
                match random.below(4) {
                    0 => bytes.insert(place.min(bytes.len()), random.byte()),
                    1 if !bytes.is_empty() => _ = bytes.remove(place),
                    2 if bytes.len() < 4096 => bytes.extend_from_within(..),
                    _ => {
                        if let Some(byte) = bytes.get_mut(place) {
                            *byte = random.byte();
                        }
                    }
                }
            }
            elements[at].content = Content::Bytes(bytes);
        }
    }
}

fn copy(element: &Element) -> Element {
    let content = match &element.content {
        Content::Bytes(bytes) => Content::Bytes(bytes.clone()),
        Content::Elements(inner) => Content::Elements(inner.iter().map(copy).collect()),
    };
    Element { tag: element.tag, content }
}

fn write(element: &Element, out: &mut Vec<u8>) {
    let mut content = Vec::new();
    match &element.content {
        Content::Bytes(bytes) => content.extend_from_slice(bytes),
        Content::Elements(inner) => inner.iter().for_each(|element| write(element, &mut content)),
    }
    out.push(element.tag);
    match content.len() {
        length @ 0..=0x7f => out.push(length as u8),
        length @ 0x80..=0xff => out.extend([0x81, length as u8]),
        length => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(content);
}

/// Blanks and line ends are passed over.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut held) = (0_u32, 0);
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=') {
        bits = bits << 6 | value(byte)?;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

fn value(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// In lines of 64 characters.
pub fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 3 / 2);
    for (at, three) in bytes.chunks(3).enumerate() {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63];
            out.push(if digit > three.len() { '=' } else { letter.into() });
        }
        if at % 16 == 15 {
            out.push('\n');
        }
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// Numbers that follow from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Below `end`, which counts as one at least.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}
