// A simulated CUDA device: its memory is that of the host, and its kernels are those of the CPU.
//
// Its tensors are ordinary tensors with the dispatch key CUDA, so autograd, autocast, modules and optimizers treat them
// like those of a GPU. Every operation without a composite kernel is dispatched to `run_on_host`, which checks for errors
// of a GPU, counts a launch, and calls the CPU kernel on the same memory. device.py is the Python half.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::DispatchKey;
using c10::IValue;
using c10::Stream;
using c10::StreamId;
using torch::jit::Stack;

namespace {

constexpr int MOST_DEVICES = 8;
constexpr int GARBAGE = 0xFF;  // content of uninitialized memory: NaN as floats, -1 as integers
const char* const BROKEN = "CUDA error: operation failed due to a previous error during capture";
const char* const NOT_PERMITTED = "CUDA error: operation not permitted when stream is capturing";

std::recursive_mutex guard;
using Lock = std::lock_guard<std::recursive_mutex>;

int devices = 1;
bool gives_default = false;  // a new generator is the default one, which Python cannot access otherwise
using Report = void (*)(const char* kind, const char* operation);
Report report = nullptr;  // called for each host synchronisation
std::map<std::string, int64_t> launched;

thread_local DeviceIndex device_now = 0;
thread_local StreamId stream_now[MOST_DEVICES] = {};
std::atomic<StreamId> streams{1};

// --------------------------------------------------------------------------------------------------------- memory

struct Memory {
  size_t allocated = 0, peak = 0, reserved = 0, total = size_t(80) << 30;
};
Memory memory[MOST_DEVICES];

struct Block {
  void* data;
  size_t bytes;
  DeviceIndex device;
  Block(size_t bytes, DeviceIndex device) : data(c10::alloc_cpu(bytes)), bytes(bytes), device(device) {
    std::memset(data, GARBAGE, bytes);
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() {
    Lock lock(guard);
    memory[device].allocated -= bytes;
    std::memset(data, GARBAGE, bytes);
    c10::free_cpu(data);
  }
};
using Owner = std::shared_ptr<Block>;

// -------------------------------------------------------------------------------------------------------- captures

struct Output {
  size_t position;  // index in the stack of results
  int64_t item;     // index in a list of tensors; -1 for a tensor
  void* data;
  size_t bytes;
};

struct Launch {
  c10::OperatorHandle op;
  Stack arguments;  // device tensors as host tensors on the same memory, which they do not own
  std::vector<Output> outputs;
  std::vector<std::pair<at::Tensor, Output>> resized;  // arguments that were empty before
};

struct Graph {
  std::vector<Launch> launches;
  std::vector<Owner> made;                   // the pool of the graph
  std::map<Block*, std::weak_ptr<Block>> read;  // memory outside the pool
};

struct Capture {
  DeviceIndex device;
  StreamId origin;
  std::thread::id thread;
  std::set<StreamId> streams;  // streams whose work is captured
  std::set<StreamId> open;     // forked and not yet joined
  std::string broken;          // reason why it cannot become a graph
  std::map<Block*, std::pair<Owner, std::vector<char>>> before;  // previous contents of memory that it writes to
  std::unique_ptr<Graph> graph = std::make_unique<Graph>();
};
std::unique_ptr<Capture> capture;

bool captures(DeviceIndex device, StreamId stream) {
  return capture && capture->device == device && capture->streams.count(stream);
}

bool captures_here() {
  return capture && captures(capture->device, stream_now[capture->device]);
}

void break_capture(const std::string& why) {
  if (capture && capture->broken.empty()) capture->broken = why;
}

// The host waits for the device.
void synchronises(const char* kind, const std::string& operation) {
  bool capturing;
  {
    Lock lock(guard);
    capturing = captures_here();
    if (capturing) break_capture(operation);
  }
  TORCH_CHECK(!capturing, NOT_PERMITTED, " (", operation, ")");
  if (report) report(kind, operation.c_str());
}

void release(void* owner) { delete static_cast<Owner*>(owner); }

struct DeviceAllocator final : c10::Allocator {
  DeviceIndex fixed;
  explicit DeviceAllocator(DeviceIndex fixed) : fixed(fixed) {}
  c10::DataPtr allocate(size_t bytes) override {
    const DeviceIndex device = fixed < 0 ? device_now : fixed;
    const Device where(DeviceType::CUDA, device);
    if (bytes == 0) return {nullptr, nullptr, &release, where};
    Lock lock(guard);
    Memory& m = memory[device];
    TORCH_CHECK_WITH(
        OutOfMemoryError, m.allocated + bytes <= m.total, "CUDA out of memory. Tried to allocate ", bytes, " bytes");
    m.allocated += bytes;
    m.peak = std::max(m.peak, m.allocated);
    m.reserved = std::max(m.reserved, m.allocated);
    auto* owner = new Owner(std::make_shared<Block>(bytes, device));
    if (captures(device, stream_now[device])) capture->graph->made.push_back(*owner);
    return {(*owner)->data, owner, &release, where};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
DeviceAllocator of_current(-1);

DeviceAllocator& allocator_of(DeviceIndex device) {
  static DeviceAllocator all[MOST_DEVICES] = {
      DeviceAllocator(0), DeviceAllocator(1), DeviceAllocator(2), DeviceAllocator(3),
      DeviceAllocator(4), DeviceAllocator(5), DeviceAllocator(6), DeviceAllocator(7)};
  return all[device];
}

std::set<const void*> pinned;

struct PinnedAllocator final : c10::Allocator {
  static void unpin(void* data) {
    Lock lock(guard);
    pinned.erase(data);
    c10::free_cpu(data);
  }
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(std::max<size_t>(bytes, 1));
    Lock lock(guard);
    pinned.insert(data);
    return {data, data, &unpin, Device(DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &unpin; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
PinnedAllocator pinned_memory;

bool is_pinned(const at::Tensor& t) {
  Lock lock(guard);
  return pinned.count(t.storage().data());
}

// ------------------------------------------------------------------------------------------------------- generators

struct DeviceGenerator final : c10::GeneratorImpl {
  at::Generator host = at::detail::createCPUGenerator();
  explicit DeviceGenerator(DeviceIndex device)
      : GeneratorImpl(Device(DeviceType::CUDA, device), c10::DispatchKeySet(DispatchKey::CUDA)) {}
  void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.seed(); }
  void set_state(const c10::TensorImpl& state) override { host.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return host.unsafeGetGeneratorImpl()->get_state(); }
  DeviceGenerator* clone_impl() const override {
    auto* other = new DeviceGenerator(device_.index());
    other->host = host.clone();
    return other;
  }
};

const at::Generator& default_generator(DeviceIndex device) {
  static std::vector<at::Generator> all = [] {
    std::vector<at::Generator> made;
    for (int d = 0; d < MOST_DEVICES; ++d) made.push_back(at::make_generator<DeviceGenerator>(DeviceIndex(d)));
    return made;
  }();
  return all[device < 0 ? device_now : device];
}

// ------------------------------------------------------------------------------------------- devices, streams, events

struct Event {
  StreamId stream;
  bool captured;
};

struct DeviceGuard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device d) const override {
    const DeviceIndex before = device_now;
    setDevice(d);
    return Device(DeviceType::CUDA, before);
  }
  Device getDevice() const override { return Device(DeviceType::CUDA, device_now); }
  void setDevice(Device d) const override { uncheckedSetDevice(d); }
  void uncheckedSetDevice(Device d) const noexcept override {
    if (d.index() >= 0) device_now = d.index();
  }
  Stream getStream(Device d) const override { return of(d, stream_now[index(d)]); }
  Stream getDefaultStream(Device d) const override { return of(d, 0); }
  Stream getStreamFromGlobalPool(Device d, bool) const override { return of(d, streams++); }
  Stream getNewStream(Device d, int) const override { return of(d, streams++); }
  Stream exchangeStream(Stream s) const override {
    const Stream before = getStream(s.device());
    stream_now[s.device_index()] = s.id();
    return before;
  }
  void destroyEvent(void* event, const DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  void record(void** event, const Stream& s, const DeviceIndex, const c10::EventFlag) const override {
    Lock lock(guard);
    if (!*event) *event = new Event();
    *static_cast<Event*>(*event) = {s.id(), captures(s.device_index(), s.id())};
  }
  void block(void* event, const Stream& s) const override {
    Lock lock(guard);
    if (!event || !capture) return;
    const Event& e = *static_cast<Event*>(event);
    if (e.captured) {
      capture->streams.insert(s.id());
      capture->open.erase(e.stream);
      if (s.id() != capture->origin) capture->open.insert(s.id());
    } else if (captures(s.device_index(), s.id())) {
      break_capture("a dependency on work that is not captured");
      TORCH_CHECK(false, "CUDA error: dependency created on uncaptured work in another stream");
    }
  }
  bool queryEvent(void*) const override { return true; }
  DeviceIndex deviceCount() const noexcept override { return DeviceIndex(devices); }
  bool queryStream(const Stream&) const override { return true; }
  bool isStreamCapturing(const Stream& s) const override { return captures(s.device_index(), s.id()); }
  void synchronizeStream(const Stream&) const override { synchronises("wait", "Stream.synchronize"); }
  void synchronizeEvent(void*) const override { synchronises("wait", "Event.synchronize"); }
  void synchronizeDevice(const DeviceIndex) const override { synchronises("wait", "cuda.synchronize"); }
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override {}

 private:
  static DeviceIndex index(Device d) { return d.index() < 0 ? device_now : d.index(); }
  static Stream of(Device d, StreamId id) { return Stream(Stream::UNSAFE, Device(DeviceType::CUDA, index(d)), id); }
};

// ------------------------------------------------------------------------------------------------------- operations

// The host waits for the results of these operations, or for their sizes.
const std::set<std::string> WAIT = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd",
    "_linalg_eigvals", "linalg_eig", "linalg_lstsq", "bincount", "is_nonzero", "repeat_interleave", "multinomial",
    "segment_reduce"};

// CUDA kernels with a nondeterministic order of additions, which raise an error under deterministic algorithms.
const std::set<std::string> NOT_DETERMINISTIC = {
    "cumsum", "upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "upsample_linear1d_backward",
    "reflection_pad1d_backward", "reflection_pad2d_backward", "replication_pad1d_backward",
    "replication_pad2d_backward", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward",
    "avg_pool3d_backward", "max_pool3d_with_indices_backward", "histc", "bincount", "kthvalue", "median", "put_",
    "scatter_reduce", "grid_sampler_2d_backward", "nll_loss2d"};

const std::set<std::string> TAKES_HOST_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index",
                                                  "_unsafe_index_put"};

std::string base_name(const c10::OperatorHandle& op) {
  const std::string& name = op.operator_name().name;
  const size_t colon = name.find("::");
  return colon == std::string::npos ? name : name.substr(colon + 2);
}

bool on_device(const at::Tensor& t) { return t.defined() && t.device().type() == DeviceType::CUDA; }

Owner* owner_of(const at::Tensor& t) {
  return t.has_storage() && t.storage().data() ? static_cast<Owner*>(t.storage().data_ptr().get_context()) : nullptr;
}

at::Tensor view_of(const c10::Storage& storage, const at::Tensor& like, DispatchKey key) {
  auto t = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage), c10::DispatchKeySet(key), like.dtype());
  t.unsafeGetTensorImpl()->set_storage_offset(like.storage_offset());
  t.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides());
  t._set_conj(like.is_conj());
  t._set_neg(like.is_neg());
  return t;
}

// Conversion of the arguments of one call to the host, and of its results to the device.
class Call {
 public:
  explicit Call(bool recorded) : recorded_(recorded) {}

  IValue to_host(const IValue& value, bool written) {
    if (value.isTensor()) return tensor_to_host(value.toTensor(), written);
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : value.toTensorVector()) list.push_back(tensor_to_host(t, written));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& t : value.toOptionalTensorVector())
        list.push_back(t && t->defined() ? std::optional<at::Tensor>(tensor_to_host(*t, written)) : std::nullopt);
      return list;
    }
    if (value.isDevice() && value.toDevice().type() == DeviceType::CUDA) return Device(DeviceType::CPU);
    return value;
  }

  IValue to_device(const IValue& value, DeviceIndex device, size_t position, std::vector<Output>* outputs) {
    if (value.isTensor()) return tensor_to_device(value.toTensor(), device, {position, -1}, outputs);
    if (value.isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : value.toTensorVector())
        list.push_back(tensor_to_device(t, device, {position, int64_t(list.size())}, outputs));
      return list;
    }
    return value;
  }

  // Return empty tensors that the operation has resized.
  std::vector<std::pair<at::Tensor, Output>> finish() {
    std::vector<std::pair<at::Tensor, Output>> outputs;
    for (auto& [original, host] : resized_) {
      if (host.numel() == 0) continue;
      const size_t bytes = host.storage().nbytes();
      at::native::resize_impl_cpu_(original.unsafeGetTensorImpl(), host.sizes(), host.strides());
      std::memcpy(original.storage().mutable_data(), host.storage().data(), bytes);
      outputs.push_back({host, {0, -1, original.storage().mutable_data(), bytes}});
    }
    return outputs;
  }

 private:
  at::Tensor tensor_to_host(const at::Tensor& t, bool written) {
    if (!on_device(t)) return t.defined() && recorded_ && !written ? t.clone() : t;
    if (written && t.numel() == 0 && t.storage().nbytes() == 0) {
      resized_.emplace_back(t, at::empty({0}, at::TensorOptions().dtype(t.dtype())));
      return resized_.back().second;
    }
    const size_t bytes = t.storage().nbytes();
    auto& storage = hosts_[t.storage().unsafeGetStorageImpl()];
    if (!storage) {
      storage = c10::Storage(
          c10::Storage::use_byte_size_t(), bytes,
          c10::DataPtr(t.storage().mutable_data(), Device(DeviceType::CPU)), nullptr, false);
      devices_[storage.unsafeGetStorageImpl()] = t.storage();
      if (recorded_) remember(t, false);
    }
    if (recorded_ && written) remember(t, true);
    return view_of(storage, t, DispatchKey::CPU);
  }

  // A capture records which memory its work reads, and saves the contents that it overwrites, to restore them at the end.
  static void remember(const at::Tensor& t, bool written) {
    Owner* owner = owner_of(t);
    if (!owner) return;
    Graph& graph = *capture->graph;
    const bool own = std::find(graph.made.begin(), graph.made.end(), *owner) != graph.made.end();
    if (own) return;
    graph.read[owner->get()] = *owner;
    if (written && !capture->before.count(owner->get())) {
      const char* data = static_cast<const char*>((*owner)->data);
      capture->before[owner->get()] = {*owner, std::vector<char>(data, data + (*owner)->bytes)};
    }
  }

  at::Tensor tensor_to_device(const at::Tensor& t, DeviceIndex device, Output output, std::vector<Output>* outputs) {
    if (!t.defined() || !t.has_storage()) return t;
    auto known = devices_.find(t.storage().unsafeGetStorageImpl());
    if (known != devices_.end()) return view_of(known->second, t, DispatchKey::CUDA);
    const size_t bytes = t.storage().nbytes();
    DeviceAllocator& allocator = allocator_of(device);
    c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, allocator.allocate(bytes), &allocator, true);
    if (bytes) std::memcpy(storage.mutable_data(), t.storage().data(), bytes);
    if (outputs && bytes) {
      output.data = storage.mutable_data();
      output.bytes = bytes;
      outputs->push_back(output);
    }
    return view_of(storage, t, DispatchKey::CUDA);
  }

  bool recorded_;
  std::map<c10::StorageImpl*, c10::Storage> hosts_;    // host storages by device storage
  std::map<c10::StorageImpl*, c10::Storage> devices_;  // device storages by host storage
  std::vector<std::pair<at::Tensor, at::Tensor>> resized_;
};

void each_tensor(const IValue& value, const std::function<void(const at::Tensor&)>& visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) visit(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& t : value.toTensorVector())
      if (t.defined()) visit(t);
  } else if (value.isOptionalTensorList()) {
    for (const std::optional<at::Tensor>& t : value.toOptionalTensorVector())
      if (t && t->defined()) visit(*t);
  }
}

// Return the device of a call, and check that it is unique.
DeviceIndex device_of(const std::string& name, const c10::FunctionSchema& schema, const IValue* arguments) {
  const bool copies = name == "copy_";
  DeviceIndex device = -1;
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    if (arguments[i].isDevice() && arguments[i].toDevice().type() == DeviceType::CUDA && device < 0)
      device = arguments[i].toDevice().has_index() ? arguments[i].toDevice().index() : device_now;
    each_tensor(arguments[i], [&](const at::Tensor& t) {
      if (!on_device(t)) return;
      TORCH_CHECK(
          copies || device < 0 || device == t.device().index(),
          "Expected all tensors to be on the same device, but found at least two devices, cuda:", int(device), " and ",
          t.device(), "! (", name, ")");
      device = t.device().index();
    });
  }
  if (device < 0) return device_now;
  for (size_t i = 0; i < schema.arguments().size() && !copies; ++i) {
    const bool indices = i == 1 && TAKES_HOST_INDICES.count(name);
    each_tensor(arguments[i], [&](const at::Tensor& t) {
      if (on_device(t)) return;
      if (indices) return synchronises("host to device", name + " (indices)");
      TORCH_CHECK(
          t.dim() == 0, "Expected all tensors to be on the same device, but found at least two devices, cuda:",
          int(device), " and cpu! (", name, ")");
    });
  }
  return device;
}

// Copies from and to pageable host memory wait, regardless of `non_blocking`.
void check_copy(const at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  if (on_device(to) == on_device(from)) return;
  const at::Tensor& host = on_device(to) ? from : to;
  if (non_blocking && is_pinned(host)) return;
  synchronises(on_device(to) ? "host to device" : "device to host", "copy_");
}

void run_on_host(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size();
  const size_t begin = stack->size() - count;
  const std::string name = base_name(op);
  const IValue* arguments = stack->data() + begin;
  const DeviceIndex device = device_of(name, schema, arguments);

  if (name == "copy_") check_copy(arguments[0].toTensor(), arguments[1].toTensor(), arguments[2].toBool());
  if (WAIT.count(name)) synchronises("value", name);
  if (NOT_DETERMINISTIC.count(name)) {
    bool floating = false;
    each_tensor(arguments[0], [&](const at::Tensor& t) { floating = floating || t.is_floating_point(); });
    if (floating) at::globalContext().alertNotDeterministic(name + "_cuda");
  }

  std::unique_lock<std::recursive_mutex> lock(guard);
  const bool recorded = captures(device, stream_now[device]);
  if (capture && !recorded && capture->device == device && capture->thread == std::this_thread::get_id()) {
    break_capture(name + " on a stream that is not captured");
    TORCH_CHECK(false, NOT_PERMITTED, " (", name, " on another stream)");
  }
  if (recorded && stream_now[device] != capture->origin) capture->open.insert(stream_now[device]);
  launched[name.back() == '_' ? name.substr(0, name.size() - 1) : name] += 1;
  if (!recorded) lock.unlock();  // captures are serialized, eager work is not

  Call call(recorded);
  Stack host;
  for (size_t i = 0; i < count; ++i) {
    const auto& argument = schema.arguments()[i];
    const bool written = argument.alias_info() && argument.alias_info()->isWrite();
    IValue value = arguments[i];
    if (argument.name() == "generator") {
      TORCH_CHECK(
          value.isNone() || value.toGenerator().device().type() == DeviceType::CUDA,
          "Expected a 'cuda' device type for generator but found 'cpu' (", name, ")");
      if (recorded && !value.isNone()) {
        break_capture("a generator that is not registered with the graph");
        TORCH_CHECK(false, "Attempt to increase offset for a CUDA generator not in capture mode.");
      }
      const at::Generator& used = value.isNone() ? default_generator(device) : value.toGenerator();
      value = static_cast<DeviceGenerator*>(used.unsafeGetGeneratorImpl())->host;
    }
    host.push_back(call.to_host(value, written));
  }
  Stack results = host;
  {
    at::AutoDispatchBelowADInplaceOrView below;
    op.callBoxed(&results);
  }
  auto resized = call.finish();

  std::vector<Output> outputs;
  Stack returned;
  for (size_t i = 0; i < results.size(); ++i) {
    const auto* alias = schema.returns()[i].alias_info();
    IValue value;
    if (alias && alias->isWrite()) {
      for (size_t k = 0; k < count; ++k) {
        const auto* other = schema.arguments()[k].alias_info();
        if (other && other->isWrite() && other->beforeSets() == alias->beforeSets()) value = arguments[k];
      }
    } else {
      value = call.to_device(results[i], device, i, recorded ? &outputs : nullptr);
    }
    returned.push_back(std::move(value));
  }
  if (recorded) capture->graph->launches.push_back({op, std::move(host), std::move(outputs), std::move(resized)});
  stack->erase(stack->begin() + begin, stack->end());
  for (IValue& value : returned) stack->push_back(std::move(value));
}

// ------------------------------------------------------------------------------------ operations without device work

DeviceIndex index_of(std::optional<Device> device) {
  return device && device->has_index() ? device->index() : device_now;
}

at::Tensor empty(
    at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<Device> device,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const DeviceIndex index = index_of(device);
  TORCH_CHECK(index < devices, "CUDA error: invalid device ordinal");
  return at::detail::empty_generic(
      size, &allocator_of(index), c10::DispatchKeySet(DispatchKey::CUDA), c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(
    at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<Device> device, std::optional<bool>) {
  const DeviceIndex index = index_of(device);
  TORCH_CHECK(index < devices, "CUDA error: invalid device ordinal");
  return at::detail::empty_strided_generic(
      size, stride, &allocator_of(index), c10::DispatchKeySet(DispatchKey::CUDA), c10::dtype_or_default(dtype));
}

const at::Tensor& resize_(const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  at::native::resize_impl_cpu_(self.unsafeGetTensorImpl(), size, std::nullopt);
  if (format) self.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  return self;
}

at::Tensor& set_empty_(at::Tensor& self) {
  DeviceAllocator& allocator = allocator_of(self.device().index());
  c10::Storage none(c10::Storage::use_byte_size_t(), 0, allocator.allocate(0), &allocator, true);
  return at::native::set_storage_cpu_(self, std::move(none), 0, {0}, {});
}

void record_stream(at::Tensor&, Stream) {}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("resize_", &resize_);
  m.impl("record_stream", &record_stream);
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  m.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(at::native::set_storage_cpu_));
  m.impl("set_.source_Storage", static_cast<at::Tensor& (*)(at::Tensor&, at::Storage)>(&at::native::set_));
  m.impl("set_", &set_empty_);
  m.impl("set_.source_Tensor", TORCH_FN(at::native::set_tensor_));
  // Composite on other devices, but one kernel on CUDA (or of cuDNN).
  for (const char* name : {"copy_", "convolution", "convolution_backward"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames())
    if (name.name.rfind("aten::_foreach_", 0) == 0 && name.overload_name.find("out") == std::string::npos)
      m.impl(
          (name.overload_name.empty() ? name.name : name.name + "." + name.overload_name).c_str(),
          torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

}  // namespace

namespace c10::impl {
using PretendedGuard = ::DeviceGuard;
C10_REGISTER_GUARD_IMPL(CUDA, PretendedGuard)
}  // namespace c10::impl

namespace at {
struct CUDAHooks : public CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return DeviceIndex(devices); }
  int getNumGPUs() const override { return devices; }
  DeviceIndex getCurrentDevice() const override { return device_now; }
  DeviceIndex current_device() const override { return device_now; }
  void setCurrentDevice(DeviceIndex device) const override { device_now = device; }
  const Generator& getDefaultGenerator(DeviceIndex device) const override { return default_generator(device); }
  Generator getNewGenerator(DeviceIndex device) const override {
    if (gives_default) return default_generator(device);
    return make_generator<DeviceGenerator>(device < 0 ? device_now : device);
  }
  Device getDeviceFromPtr(void*) const override { return Device(DeviceType::CUDA, device_now); }
  bool isPinnedPtr(const void* data) const override {
    Lock lock(guard);
    return pinned.count(data);
  }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned_memory; }
  Allocator* getCUDADeviceAllocator() const override { return &of_current; }
  void deviceSynchronize(DeviceIndex) const override { synchronises("wait", "cuda.synchronize"); }
};
REGISTER_CUDA_HOOKS(CUDAHooks);
}  // namespace at

// ------------------------------------------------------------------------------------- interface for device.py (ctypes)

namespace {
thread_local std::string answer;
std::map<int64_t, std::unique_ptr<Graph>> graphs;
int64_t graph_number = 0;
}  // namespace

extern "C" {

void pretend_begin(int count, Report callback) {
  devices = count;
  report = callback;
  c10::SetAllocator(DeviceType::CUDA, &of_current, 100);
}

void pretend_give_default_generators(int yes) { gives_default = yes; }
int pretend_devices() { return devices; }
int pretend_device() { return device_now; }
int pretend_exchange_device(int device) {
  const int before = device_now;
  if (device >= 0) device_now = DeviceIndex(device);
  return before;
}
int64_t pretend_stream(int device) { return stream_now[device]; }
void pretend_set_stream(int device, int64_t stream) { stream_now[device] = stream; }
void pretend_wait(const char* operation, char* error, int size) {
  error[0] = 0;
  try {
    synchronises("wait", operation);
  } catch (const std::exception& e) {
    std::strncpy(error, e.what(), size - 1);
  }
}

// Memory: 0 allocated, 1 its peak, 2 reserved, 3 total.
int64_t pretend_memory(int device, int which) {
  Lock lock(guard);
  const Memory& m = memory[device];
  return int64_t(which == 0 ? m.allocated : which == 1 ? m.peak : which == 2 ? m.reserved : m.total);
}
void pretend_reset_peak(int device) { memory[device].peak = memory[device].allocated; }
void pretend_return_memory(int device) { memory[device].reserved = memory[device].allocated; }
void pretend_set_total(int device, int64_t bytes) { memory[device].total = size_t(bytes); }

// Launches so far, one "name count" per line.
const char* pretend_launches() {
  Lock lock(guard);
  answer.clear();
  for (const auto& [name, count] : launched) answer += name + " " + std::to_string(count) + "\n";
  return answer.c_str();
}

int pretend_is_capturing() {
  Lock lock(guard);
  return captures_here();
}

int pretend_capture_begin(int device) {
  Lock lock(guard);
  if (capture || stream_now[device] == 0) return 0;
  capture = std::make_unique<Capture>();
  capture->device = DeviceIndex(device);
  capture->origin = stream_now[device];
  capture->thread = std::this_thread::get_id();
  capture->streams = {capture->origin};
  return 1;
}

// Return the number of the graph, or -1 if the capture is broken.
int64_t pretend_capture_end() {
  Lock lock(guard);
  if (!capture) return -1;
  auto ended = std::move(capture);
  for (auto& [_, kept] : ended->before) std::memcpy(kept.first->data, kept.second.data(), kept.second.size());
  for (const Owner& owner : ended->graph->made) std::memset(owner->data, GARBAGE, owner->bytes);
  if (!ended->broken.empty() || !ended->open.empty()) return -1;
  graphs[++graph_number] = std::move(ended->graph);
  return graph_number;
}

// Return 0, or 1 if memory that the graph uses has been freed.
int pretend_replay(int64_t number) {
  Lock lock(guard);
  const Graph& graph = *graphs.at(number);
  for (const auto& [_, block] : graph.read)
    if (block.expired()) return 1;
  at::AutoDispatchBelowADInplaceOrView below;
  for (const Launch& launch : graph.launches) {
    Stack stack = launch.arguments;
    launch.op.callBoxed(&stack);
    for (const Output& output : launch.outputs) {
      const IValue& value = stack[output.position];
      const at::Tensor t = output.item < 0 ? value.toTensor() : value.toTensorVector()[output.item];
      std::memcpy(output.data, t.storage().data(), output.bytes);
    }
    for (const auto& [host, output] : launch.resized) std::memcpy(output.data, host.storage().data(), output.bytes);
  }
  launched["graph"] += 1;
  return 0;
}
int64_t pretend_graph_size(int64_t number) {
  Lock lock(guard);
  return int64_t(graphs.at(number)->launches.size());
}
void pretend_forget(int64_t number) {
  Lock lock(guard);
  graphs.erase(number);
}

}  // extern "C"
