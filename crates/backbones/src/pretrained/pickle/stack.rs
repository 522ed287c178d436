//! What the machine's opcodes have in common: the bytes that follow one, and the stack.

use anyhow::{Context, Result, bail};

use super::value::{Id, Value};
use super::{DICTIONARIES, MOST_VALUES, Machine};

impl<'a> Machine<'a> {
    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.context("its pickle is cut off: the file is not whole")?;
        self.at += count;
        Ok(taken)
    }

    /// The next bytes, as many as a number has.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    pub(super) fn length4(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(super) fn length8(&mut self) -> Result<usize> {
        Ok(usize::try_from(u64::from_le_bytes(self.array()?))?)
    }

    /// The text to the end of the line.
    pub(super) fn line(&mut self) -> Result<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(length.context("its pickle is cut off: the file is not whole")?)?;
        self.take(1)?;
        std::str::from_utf8(line).context("its pickle has a name that is no text")
    }

    /// A new value, without a place on the stack.
    pub(super) fn keep(&mut self, value: Value) -> Result<Id> {
        if self.heap.values.len() >= MOST_VALUES {
            bail!("its pickle holds more than {MOST_VALUES} values, far more than any checkpoint")
        }
        self.heap.values.push(value);
        Ok(Id::try_from(self.heap.values.len() - 1)?)
    }

    pub(super) fn push(&mut self, value: Value) -> Result<()> {
        let id = self.keep(value)?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// The value on top, above the last mark.
    pub(super) fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = if self.stack.len() > floor { self.stack.last() } else { None };
        top.copied().context("its pickle takes a value that is not there")
    }

    pub(super) fn above_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().context("its pickle goes back to a mark that is not there")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    pub(super) fn decimal(&mut self, digits: &str) -> Result<()> {
        match digits.trim().parse() {
            Ok(value) => self.push(Value::Int(value)),
            // Longer than 64 bits: nobody here needs its value.
            Err(_) => self.push(Value::Long(Vec::new())),
        }
    }

    /// A whole number of `length` bytes.
    pub(super) fn long(&mut self, length: usize) -> Result<()> {
        let bytes = self.take(length)?;
        if length > 8 {
            return self.push(Value::Long(bytes.to_vec()));
        }
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut whole = [if negative { 0xff } else { 0 }; 8];
        whole[..length].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(whole)))
    }

    pub(super) fn text(&mut self, bytes: &[u8]) -> Result<()> {
        self.push(Value::Text(String::from_utf8_lossy(bytes).into()))
    }

    /// Bytes that are passed over.
    pub(super) fn blob(&mut self, length: usize) -> Result<()> {
        self.take(length)?;
        self.push(Value::Bytes)
    }

    pub(super) fn tuple(&mut self, count: usize) -> Result<()> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(self.pop()?);
        }
        all.reverse();
        self.push(Value::Tuple(all))
    }

    pub(super) fn recall(&mut self, key: u32) -> Result<()> {
        let id = self.memo.get(&key).copied();
        self.stack.push(id.context("its pickle recalls a value that it never had")?);
        Ok(())
    }

    pub(super) fn append(&mut self, more: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        match &mut self.heap.values[top as usize] {
            Value::List(all) => all.extend(more),
            // A class of somebody's that is a list.
            Value::Call { .. } => {}
            _ => bail!("its pickle appends to what is no list"),
        }
        Ok(())
    }

    pub(super) fn set_items(&mut self, more: Vec<(Id, Id)>) -> Result<()> {
        let top = self.top()?;
        match &mut self.heap.values[top as usize] {
            Value::Dict(all) | Value::Call { items: all, .. } => all.extend(more),
            _ => bail!("its pickle sets an item of what is no dictionary"),
        }
        Ok(())
    }

    /// The object that calling `callable` would give; a dictionary where that is known.
    pub(super) fn call(&mut self, callable: Id, args: Id) -> Result<()> {
        if let Some(name) = self.heap.global(callable).map(String::from) {
            if DICTIONARIES.contains(&name.as_str()) {
                let entries = self.first_entries(args);
                self.copied += entries.len();
                if self.copied > MOST_VALUES {
                    bail!("its pickle makes one dictionary from another without end")
                }
                return self.push(Value::Dict(entries));
            }
            self.heap.called.insert(name);
        }
        self.push(Value::Call { callable, args, items: Vec::new() })
    }

    /// The entries with which a dictionary is made: a list of pairs, as older Pythons write it.
    fn first_entries(&self, args: Id) -> Vec<(Id, Id)> {
        let Some(list) = self.heap.elements(args).and_then(|args| args.last()) else { return Vec::new() };
        let pair = |id: &Id| match self.heap.elements(*id) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        };
        self.heap.elements(*list).unwrap_or_default().iter().filter_map(pair).collect()
    }
}

/// Keys and values that lie one after the other.
pub(super) fn pairs(all: &[Id]) -> Result<Vec<(Id, Id)>> {
    if !all.len().is_multiple_of(2) {
        bail!("its pickle has a key without a value")
    }
    Ok(all.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}
