//! Jute, the serialization of ZooKeeper's protocol: big-endian numbers, and byte strings behind
//! their length.

/// Why bytes are not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

/// Writes one frame: its length, and then what is put.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Self {
        Self(vec![0; 4])
    }

    pub(super) fn int(&mut self, number: i32) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn long(&mut self, number: i64) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn bool(&mut self, truth: bool) -> &mut Self {
        self.0.push(u8::from(truth));
        self
    }

    /// Bytes, or text as UTF-8. What is put here is bounded by the lengths of keys and notes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.int(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        self.0.extend(bytes);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut frame = self.0;
        let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
        frame[..4].copy_from_slice(&length.to_be_bytes());
        frame
    }
}

/// Reads what is in a frame, after its length.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        self.take(N)?.try_into().map_err(|_| Garbled)
    }

    pub(super) fn int(&mut self) -> Result<i32, Garbled> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn bool(&mut self) -> Result<bool, Garbled> {
        self.array().map(|[byte]| byte != 0)
    }

    pub(super) fn long(&mut self) -> Result<i64, Garbled> {
        self.array().map(i64::from_be_bytes)
    }

    /// Bytes; a null, which has the length -1, counts as none.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        match usize::try_from(self.int()?) {
            Ok(length) => self.take(length),
            Err(_) => Ok(&[]),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Garbled> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Garbled)
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, Garbled> {
        let count = usize::try_from(self.int()?).unwrap_or(0);
        // Each takes four bytes at least, so a false count costs no memory.
        let mut texts = Vec::with_capacity(count.min(self.0.len() / 4));
        for _ in 0..count {
            texts.push(self.text()?.to_owned());
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new();
        writer.int(-7).long(i64::MIN).bool(true).text("鍵").bytes(&[0, 255]);
        let frame = writer.finish();
        assert_eq!(
            usize::try_from(u32::from_be_bytes(frame[..4].try_into().unwrap())),
            Ok(frame.len() - 4)
        );
        let mut reader = Reader::new(&frame[4..]);
        assert_eq!(reader.int(), Ok(-7));
        assert_eq!(reader.long(), Ok(i64::MIN));
        assert_eq!(reader.take(1), Ok(&[1][..]));
        assert_eq!(reader.text(), Ok("鍵"));
        assert_eq!(reader.bytes(), Ok(&[0, 255][..]));
        assert_eq!(reader.int(), Err(Garbled));
    }

    #[test]
    fn garbage_is_refused_and_costs_no_memory() {
        let huge = i32::MAX.to_be_bytes();
        assert_eq!(Reader::new(&huge).bytes(), Err(Garbled));
        assert_eq!(Reader::new(&huge).texts(), Err(Garbled));
        assert_eq!(Reader::new(&[0, 0, 0, 1, 255]).text(), Err(Garbled));
        assert_eq!(Reader::new(&(-1_i32).to_be_bytes()).bytes(), Ok(&[][..]));
    }
}
