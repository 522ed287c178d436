//! Compiled kernels: loaded once per device, found by name.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
use candle_core::{Result, bail};

/// The kernels of one `.cu` file.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) sm_80: &'static [u8],
    pub(crate) sm_90: &'static [u8],
    pub(crate) ptx: &'static str,
}

/// One [`Module`] for each `.cu` file of this crate, by its name in capitals.
pub(crate) mod modules {
    use super::Module;

    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}

/// Shared memory that a block gets without asking for more.
const USUAL_SHARED: u32 = 48 << 10;

#[derive(Default)]
struct Loaded {
    modules: HashMap<(usize, &'static str), Handle>,
    functions: HashMap<(usize, &'static str), HashMap<String, Function>>,
}

/// A handle of the driver, which may be used from any thread.
#[derive(Clone, Copy)]
struct Handle(sys::CUmodule);

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that it may have.
    shared: u32,
}

// SAFETY: the driver's handles are addresses of objects that it guards itself; they are never freed.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Send for Function {}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

impl Module {
    /// A kernel of this module, ready for launches with `shared` bytes of dynamic shared memory. The context must be current.
    pub(super) fn function(
        &'static self,
        context: &Arc<CudaContext>,
        name: &str,
        shared: u32,
    ) -> Result<sys::CUfunction> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get_or_insert_default();
        let key = (context.cu_ctx().addr(), self.name);
        if let Some(function) = loaded.functions.get(&key).and_then(|functions| functions.get(name))
            && function.shared >= shared
        {
            return Ok(function.handle);
        }
        let module = match loaded.modules.get(&key) {
            Some(module) => *module,
            None => *loaded.modules.entry(key).or_insert(self.load(context)?),
        };
        let Ok(symbol) = CString::new(name) else { bail!("{name:?} is no name of a kernel") };
        // SAFETY: the module was loaded into this context and is never unloaded.
        let handle = match unsafe { result::module::get_function(module.0, symbol) } {
            Ok(handle) => handle,
            Err(e) => bail!("the module {} has no kernel {name} ({e:?})", self.name),
        };
        if shared > USUAL_SHARED {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of this context.
            unsafe { sys::cuFuncSetAttribute(handle, attribute, shared as i32) }.result().w()?;
        }
        let function = Function { handle, shared: shared.max(USUAL_SHARED) };
        loaded.functions.entry(key).or_default().insert(name.to_string(), function);
        Ok(handle)
    }

    /// Machine code where there is some for this device, else PTX.
    fn load(&self, context: &Arc<CudaContext>) -> Result<Handle> {
        let capability = context.compute_capability().w()?;
        let text;
        let image: &[u8] = match capability {
            (9, 0) => self.sm_90,
            (8, _) => self.sm_80,
            (major, _) if major > 8 => {
                text = format!("{}\0", self.ptx);
                text.as_bytes()
            }
            (major, minor) => bail!(
                "this GPU has compute capability {major}.{minor}; the kernels need 8.0 (A100) or newer, use --device cpu"
            ),
        };
        // SAFETY: the image is a whole cubin, or PTX with a zero at its end, and outlives the call.
        match unsafe { result::module::load_data(image.as_ptr().cast::<c_void>()) } {
            Ok(module) => Ok(Handle(module)),
            Err(e) => bail!(
                "the driver does not take the kernels of {} for compute capability {capability:?} ({e:?})",
                self.name
            ),
        }
    }
}

/// An argument of a kernel.
pub(crate) enum Arg {
    /// A number or an address, from the first byte on.
    Word(u64),
    /// A structure passed by value, in words.
    Struct(Vec<u64>),
}

impl Arg {
    pub(super) fn pointer(&mut self) -> *mut c_void {
        match self {
            Self::Word(word) => (&raw mut *word).cast(),
            Self::Struct(words) => words.as_mut_ptr().cast(),
        }
    }
}

macro_rules! words {
    ($($from:ty: $convert:expr),* $(,)?) => {$(
        impl From<$from> for Arg {
            fn from(v: $from) -> Self {
                let convert: fn($from) -> u64 = $convert;
                Self::Word(convert(v))
            }
        }
    )*};
}

// A kernel reads as many bytes as its parameter has, from the lowest on.
words! {
    u64: |v| v,
    i64: |v| v as u64,
    u32: u64::from,
    i32: |v| u64::from(v as u32),
    bool: u64::from,
    f32: |v| u64::from(v.to_bits()),
    f64: f64::to_bits,
    super::Memory<'_>: |v| v.pointer(),
    &super::Buffer: super::Buffer::pointer,
}

const _: () = assert!(cfg!(target_endian = "little"));
