//! Python's pickle format, read without running anything.
//!
//! A pickle is a program for a small stack machine. PyTorch lets it call any function of Python; here it builds [`Value`]s only: a class or function
//! is a name, and what would be a call of it stays one, inert. Every opcode costs at most memory in proportion to its own bytes, no
//! value is copied when it is shared, and nothing recurses, so that a hostile file can neither run code nor use up the machine.

mod opcode;
mod stack;
mod value;

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use opcode::*;
use stack::pairs;

pub(crate) use value::{Heap, Id, Value};

/// Values of a pickle, at most. A checkpoint has some thousands.
const MOST_VALUES: usize = 1 << 23;

/// What runs when Python loads it and has no place among weights: modules, and functions.
const DANGEROUS: [&str; 24] = [
    "os.",
    "posix.",
    "nt.",
    "subprocess.",
    "pty.",
    "shutil.",
    "socket.",
    "sys.",
    "runpy.",
    "importlib.",
    "ctypes.",
    "webbrowser.",
    "asyncio.",
    "multiprocessing.",
    "builtins.eval",
    "builtins.exec",
    "builtins.compile",
    "builtins.open",
    "builtins.__import__",
    "__builtin__.eval",
    "__builtin__.exec",
    "__builtin__.compile",
    "__builtin__.open",
    "__builtin__.__import__",
];

/// Classes whose objects are dictionaries.
const DICTIONARIES: [&str; 4] =
    ["collections.OrderedDict", "builtins.dict", "__builtin__.dict", "collections.defaultdict"];

/// Reads the pickle that `bytes` begin with, and says how long it is.
///
/// # Errors
/// If it is cut off, has an opcode that does not exist, takes from an empty stack, calls what no weights need (such as `os.system`), or holds
/// absurdly many values; in words that go on after a file's name.
pub(crate) fn read(bytes: &[u8]) -> Result<(Heap, usize)> {
    let mut machine = Machine {
        bytes,
        at: 0,
        heap: Heap { values: Vec::new(), root: 0, called: Default::default() },
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
    };
    while machine.step()? {}
    let dangerous = machine.heap.called.iter().find(|name| DANGEROUS.iter().any(|bad| name.starts_with(bad)));
    if let Some(name) = dangerous {
        bail!(
            "its pickle calls {name} when Python loads it, which weights never need: nothing was run, and the file is refused; ask for a \
             safetensors file"
        )
    }
    Ok((machine.heap, machine.at))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    heap: Heap,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Entries that went into dictionaries by copying.
    copied: usize,
}

impl Machine<'_> {
    /// Runs one opcode; false at the end.
    fn step(&mut self) -> Result<bool> {
        let at = self.at;
        match self.take(1)?[0] {
            PROTO => drop(self.take(1)?),
            FRAME => drop(self.take(8)?),
            STOP => {
                self.heap.root = self.pop()?;
                return Ok(false);
            }
            MARK => self.marks.push(self.stack.len()),
            POP if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            POP => drop(self.pop()?),
            POP_MARK => drop(self.above_mark()?),
            DUP => self.stack.push(self.top()?),
            NONE => self.push(Value::None)?,
            NEWTRUE => self.push(Value::Bool(true))?,
            NEWFALSE => self.push(Value::Bool(false))?,
            INT => match self.line()? {
                "00" => self.push(Value::Bool(false))?,
                "01" => self.push(Value::Bool(true))?,
                digits => self.decimal(digits)?,
            },
            LONG => {
                let digits = self.line()?;
                self.decimal(digits.trim_end_matches('L'))?
            }
            BININT => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?
            }
            BININT1 => {
                let value = self.take(1)?[0];
                self.push(Value::Int(value.into()))?
            }
            BININT2 => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?
            }
            LONG1 => {
                let length = usize::from(self.take(1)?[0]);
                self.long(length)?
            }
            LONG4 => {
                let length = self.length4()?;
                self.long(length)?
            }
            FLOAT => {
                let value = self.line()?.trim().parse().context("its pickle has a float that is no number")?;
                self.push(Value::Float(value))?
            }
            BINFLOAT => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value))?
            }
            STRING => {
                let text = self.line()?.trim();
                let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
                self.text(inner.as_bytes())?
            }
            UNICODE => {
                let text = self.line()?;
                self.text(text.as_bytes())?
            }
            SHORT_BINSTRING | SHORT_BINUNICODE => {
                let length = usize::from(self.take(1)?[0]);
                let text = self.take(length)?;
                self.text(text)?
            }
            BINSTRING | BINUNICODE => {
                let length = self.length4()?;
                let text = self.take(length)?;
                self.text(text)?
            }
            BINUNICODE8 => {
                let length = self.length8()?;
                let text = self.take(length)?;
                self.text(text)?
            }
            SHORT_BINBYTES => {
                let length = usize::from(self.take(1)?[0]);
                self.blob(length)?
            }
            BINBYTES => {
                let length = self.length4()?;
                self.blob(length)?
            }
            BINBYTES8 | BYTEARRAY8 => {
                let length = self.length8()?;
                self.blob(length)?
            }
            EMPTY_TUPLE => self.push(Value::Tuple(Vec::new()))?,
            TUPLE1 => self.tuple(1)?,
            TUPLE2 => self.tuple(2)?,
            TUPLE3 => self.tuple(3)?,
            TUPLE => {
                let all = self.above_mark()?;
                self.push(Value::Tuple(all))?
            }
            EMPTY_LIST | EMPTY_SET => self.push(Value::List(Vec::new()))?,
            LIST | FROZENSET => {
                let all = self.above_mark()?;
                self.push(Value::List(all))?
            }
            APPEND => {
                let value = self.pop()?;
                self.append(vec![value])?
            }
            APPENDS | ADDITEMS => {
                let all = self.above_mark()?;
                self.append(all)?
            }
            EMPTY_DICT => self.push(Value::Dict(Vec::new()))?,
            DICT => {
                let all = self.above_mark()?;
                self.push(Value::Dict(pairs(&all)?))?
            }
            SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![(key, value)])?
            }
            SETITEMS => {
                let all = self.above_mark()?;
                self.set_items(pairs(&all)?)?
            }
            GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(format!("{module}.{name}").into()))?
            }
            STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let name = match (self.heap.text(module), self.heap.text(name)) {
                    (Some(module), Some(name)) => format!("{module}.{name}"),
                    _ => bail!("its pickle names a class by something that is no text"),
                };
                self.push(Value::Global(name.into()))?
            }
            REDUCE | NEWOBJ => {
                let (args, callable) = (self.pop()?, self.pop()?);
                self.call(callable, args)?
            }
            NEWOBJ_EX => {
                let (_named, args, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callable, args)?
            }
            INST => {
                let (module, name) = (self.line()?, self.line()?);
                let all = self.above_mark()?;
                let callable = self.keep(Value::Global(format!("{module}.{name}").into()))?;
                let args = self.keep(Value::Tuple(all))?;
                self.call(callable, args)?
            }
            OBJ => {
                let mut all = self.above_mark()?;
                if all.is_empty() {
                    bail!("its pickle makes an object of no class")
                }
                let callable = all.remove(0);
                let args = self.keep(Value::Tuple(all))?;
                self.call(callable, args)?
            }
            // Attributes: nothing that is read here has any.
            BUILD => drop(self.pop()?),
            PERSID => {
                let name = self.line()?;
                let id = self.keep(Value::Text(name.into()))?;
                self.push(Value::Persistent(id))?
            }
            BINPERSID => {
                let id = self.pop()?;
                self.push(Value::Persistent(id))?
            }
            GET => {
                let key = self.line()?.trim().parse().context("its pickle remembers a value by no number")?;
                self.recall(key)?
            }
            BINGET => {
                let key = self.take(1)?[0].into();
                self.recall(key)?
            }
            LONG_BINGET => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)?
            }
            PUT => {
                let key = self.line()?.trim().parse().context("its pickle remembers a value by no number")?;
                self.memo.insert(key, self.top()?);
            }
            BINPUT => {
                let key = self.take(1)?[0].into();
                self.memo.insert(key, self.top()?);
            }
            LONG_BINPUT => {
                let key = u32::from_le_bytes(self.array()?);
                self.memo.insert(key, self.top()?);
            }
            MEMOIZE => {
                let key = u32::try_from(self.memo.len())?;
                self.memo.insert(key, self.top()?);
            }
            other => bail!("its pickle has the opcode {other:#04x} at byte {at}, which no state dict has"),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
