// A detector that `fcos export` wrote, with ONNX Runtime. Copy this file into your program.
//
// Decoding and NMS are inside the model: pixels go in, boxes come out. What is left to a program is here: fit the image
// into the network input exactly as fcos does, map the boxes back, and apply the threshold of each class.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace fcos {

// RGB, 0...255, row by row, three bytes per pixel. Turn photos upright (EXIF) and OpenCV's BGR around before.
struct Image {
  int width = 0, height = 0;
  std::vector<std::uint8_t> rgb;
};

// The box is x1, y1, x2, y2 in pixels with exclusive ends; `label` is the index of the class.
struct Detection {
  std::array<float, 4> box{};
  float score = 0;
  std::int64_t label = 0;
};

// What the network sees: red, green and blue plane in the model's type. The image is in the upper left corner and has
// `inside_height` x `inside_width` pixels; the rest is padding.
struct Input {
  std::int64_t height = 0, width = 0, inside_height = 0, inside_width = 0;
  std::vector<std::uint8_t> bytes;
};

// One pass of Pillow's bilinear filter, along rows or columns, with Pillow's rounding: the same bytes. When it shrinks,
// the filter widens, so that all pixels count. OpenCV's INTER_LINEAR and GPU samplers skip pixels: other boxes.
inline std::vector<std::uint8_t> resize_pass(const std::vector<std::uint8_t>& in, int lines, int before, int after,
                                             bool columns) {
  const std::size_t step = columns ? std::size_t{3} * lines : 3, line_in = columns ? 3 : std::size_t{3} * before,
                    line_out = columns ? 3 : std::size_t{3} * after;
  const double scale = static_cast<double>(before) / after, support = std::max(scale, 1.0);
  std::vector<std::uint8_t> out(std::size_t{3} * lines * after);
  for (int i = 0; i < after; ++i) {
    const double center = (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int last = std::min(static_cast<int>(center + support + 0.5), before);
    std::vector<double> shares;
    double total = 0;
    for (int j = first; j < last; ++j) {
      shares.push_back(std::max(1 - std::abs((j - center + 0.5) / support), 0.0));
      total += shares.back();
    }
    std::vector<int> weights;
    for (double share : shares) weights.push_back(static_cast<int>(share / total * (1 << 22) + 0.5));
    for (int line = 0; line < lines; ++line) {
      for (int channel = 0; channel < 3; ++channel) {
        const std::uint8_t* source = &in[line * line_in + first * step + channel];
        int sum = 1 << 21;
        for (std::size_t j = 0; j < weights.size(); ++j) sum += source[j * step] * weights[j];
        out[line * line_out + i * step + channel] = static_cast<std::uint8_t>(std::clamp(sum >> 22, 0, 255));
      }
    }
  }
  return out;
}

inline Image resize(const Image& image, int width, int height) {
  Image out{width, height, image.rgb};
  if (width != image.width) out.rgb = resize_pass(out.rgb, image.height, image.width, width, false);
  if (height != image.height) out.rgb = resize_pass(out.rgb, width, image.height, height, true);
  return out;
}

class Detector {
 public:
  // Throws Ort::Exception or std::runtime_error if the file cannot be used. threads: 0 = as many as there are cores.
  explicit Detector(const std::filesystem::path& path, int threads = 0)
      : session_(environment(), path.c_str(), options(threads)) {
    const auto limits = metadata("limits");
    max_detections = limits.at("max_detections");
    score_threshold = limits.at("score");
    geometry_ = metadata("geometry");
    const auto thresholds = metadata("thresholds");
    for (const auto& entry : metadata("classes")) {
      classes.push_back(entry.at("name"));
      const auto& own = thresholds.at("per_class");
      this->thresholds.push_back(own.is_null() ? thresholds.at("global") : own.at(classes.size() - 1));
    }
    const auto input = session_.GetInputTypeInfo(0);
    type_ = input.GetTensorTypeAndShapeInfo().GetElementType();
    batch_ = std::max<std::int64_t>(input.GetTensorTypeAndShapeInfo().GetShape().at(0), 1);
  }

  std::vector<std::string> classes;
  std::vector<float> thresholds;  // of each class: lower scores are not worth showing
  std::int64_t max_detections = 0;
  float score_threshold = 0;  // the file itself drops what is below

  // The objects in an image, in its pixels, best first.
  std::vector<Detection> detect(const Image& image) {
    const Input input = letterbox(image);
    const float sx = static_cast<float>(image.width) / input.inside_width;
    const float sy = static_cast<float>(image.height) / input.inside_height;
    std::vector<Detection> found;
    for (Detection item : run(input)) {
      if (item.score < thresholds[item.label]) continue;
      for (int edge : {0, 1, 2, 3}) {
        const float limit = static_cast<float>(edge % 2 ? image.height : image.width);
        item.box[edge] = std::clamp(item.box[edge] * (edge % 2 ? sy : sx), 0.0f, limit);
      }
      if (item.box[2] > item.box[0] && item.box[3] > item.box[1]) found.push_back(item);
    }
    return found;
  }

  // Fit the image into the network input: scale it to one of the sides, then pad on the right and at the bottom.
  Input letterbox(const Image& image) const {
    if (geometry_.at("mode") != "letterbox" || geometry_.value("filter", "pillow") != "pillow" ||
        type_ != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8)
      throw std::runtime_error("this example resizes by letterbox only; fcos_cli/data/geometry.py has the other rules");
    const int high = geometry_.at("size").at(0), wide = geometry_.at("size").at(1);
    const double scale = std::min(static_cast<double>(high) / image.height, static_cast<double>(wide) / image.width);
    // nearbyint rounds halves to even, like Python
    const int width = std::clamp(static_cast<int>(std::nearbyint(image.width * scale)), 1, wide);
    const int height = std::clamp(static_cast<int>(std::nearbyint(image.height * scale)), 1, high);
    const Image small = resize(image, width, height);
    Input input{high, wide, height, width, {}};
    const auto& pad = geometry_.at("pad_value");
    for (int channel = 0; channel < 3; ++channel) {
      input.bytes.resize(input.bytes.size() + std::size_t{1} * high * wide, pad.is_array() ? pad[channel] : pad);
      std::uint8_t* plane = &input.bytes[std::size_t{1} * channel * high * wide];
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
          plane[std::size_t{1} * y * wide + x] = small.rgb[3 * (std::size_t{1} * y * width + x) + channel];
    }
    return input;
  }

  // All detections of the file in a prepared input, in its pixels, best first. Throws std::invalid_argument for an
  // input of the wrong size, Ort::Exception if the runtime fails, and std::runtime_error for impossible results.
  std::vector<Detection> run(const Input& input) {
    const std::size_t size = type_ == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? 4 : 1;
    if (input.bytes.size() != 3 * size * input.height * input.width)
      throw std::invalid_argument("the input has " + std::to_string(input.bytes.size()) + " bytes, not 3 x " +
                                  std::to_string(input.height) + " x " + std::to_string(input.width) + " values");
    std::vector<std::uint8_t> bytes;  // a file with a fixed batch gets copies
    std::vector<std::int64_t> sizes;
    for (std::int64_t i = 0; i < batch_; ++i) {
      bytes.insert(bytes.end(), input.bytes.begin(), input.bytes.end());
      sizes.insert(sizes.end(), {input.inside_height, input.inside_width});
    }
    const std::array<std::int64_t, 4> shape{batch_, 3, input.height, input.width};
    const std::array<std::int64_t, 2> pairs{batch_, 2};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const std::array<Ort::Value, 2> inputs{
        Ort::Value::CreateTensor(memory, bytes.data(), bytes.size(), shape.data(), shape.size(), type_),
        Ort::Value::CreateTensor(memory, sizes.data(), sizes.size(), pairs.data(), pairs.size())};
    const char* names[] = {"images", "sizes"};  // few files have `sizes`
    const char* outputs[] = {"boxes", "scores", "classes", "counts"};
    const auto result = session_.Run(Ort::RunOptions{}, names, inputs.data(), session_.GetInputCount(), outputs, 4);
    return detections(result);
  }

 private:
  std::vector<Detection> detections(const std::vector<Ort::Value>& result) const {
    const auto *boxes = result[0].GetTensorData<float>(), *scores = result[1].GetTensorData<float>();
    const auto *labels = result[2].GetTensorData<std::int64_t>(), *counts = result[3].GetTensorData<std::int64_t>();
    const auto places = result[1].GetTensorTypeAndShapeInfo().GetShape().at(1);
    if (counts[0] < 0 || counts[0] > places) throw std::runtime_error("the model returns an impossible count");
    std::vector<Detection> found;
    for (std::int64_t i = 0; i < counts[0]; ++i) {
      Detection item{{boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]}, scores[i], labels[i]};
      if (item.label < 0 || item.label >= static_cast<std::int64_t>(classes.size()))
        throw std::runtime_error("the model returns the unknown class " + std::to_string(item.label));
      if (!std::isfinite(item.score + item.box[0] + item.box[1] + item.box[2] + item.box[3]))
        throw std::runtime_error("the model returns values that are not finite");
      found.push_back(item);
    }
    return found;
  }

  // The facts that fcos stores in its files, as JSON.
  nlohmann::json metadata(const char* key) const {
    Ort::AllocatorWithDefaultOptions allocator;
    const auto text = session_.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
    if (!text) throw std::runtime_error("it was not written by `fcos export`: it has no \"" + std::string(key) + "\"");
    return nlohmann::json::parse(text.get());
  }

  static Ort::Env& environment() {
    static Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "fcos");  // one per process
    return env;
  }

  static Ort::SessionOptions options(int threads) {
    Ort::SessionOptions result;
    result.SetIntraOpNumThreads(threads);
    return result;
  }

  Ort::Session session_;
  nlohmann::json geometry_;
  ONNXTensorElementDataType type_ = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  std::int64_t batch_ = 1;
};

}  // namespace fcos
