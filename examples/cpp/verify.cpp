// fcos_verify MODEL.onnx FOLDER: does this program find what PyTorch found?
//
// `fcos verify MODEL.onnx --save FOLDER` writes the folder. Nothing here is needed to use a detector: see detect.cpp.
//
// Exit codes as of `fcos verify`: 0 the same, 5 other detections, 4 a file cannot be used, 2 wrong arguments.
#include <cstdio>
#include <fstream>
#include <iterator>

#include "fcos.hpp"

using Box = std::array<float, 4>;
using Detections = std::vector<fcos::Detection>;
using nlohmann::json;
namespace fs = std::filesystem;

struct Result {
  std::size_t matched = 0, sure = 0, missing = 0, excused = 0;
  std::vector<double> px, scores;  // differences of matched detections
  std::vector<std::string> notes;  // what differs, in words
  bool crashed = false;
};

static double area(const Box& box) { return std::max(box[2] - box[0], 0.f) * 1.0 * std::max(box[3] - box[1], 0.f); }

static double overlap(const Box& a, const Box& b) {  // intersection over union
  const double common =
      area({std::max(a[0], b[0]), std::max(a[1], b[1]), std::min(a[2], b[2]), std::min(a[3], b[3])});
  return common > 0 ? common / (area(a) + area(b) - common) : 0;
}

static double distance(const Box& a, const Box& b) {  // of the edge that differs most, in pixels
  double largest = 0;
  for (int edge : {0, 1, 2, 3}) largest = std::max<double>(largest, std::abs(a[edge] - b[edge]));
  return largest;
}

static std::string words(const std::string& label, const fcos::Detection& item) {
  char text[100];
  const Box& box = item.box;
  std::snprintf(text, sizeof text, " %.4f at [%.2f, %.2f, %.2f, %.2f]", item.score, box[0], box[1], box[2], box[3]);
  return label + text;
}

// Match one to one, best first, each with the nearest of its class. A detection of one side only is excused where the
// last digits decide: at the score threshold, and at the end of a full list.
static void compare(const Detections& expected, const Detections& found, const fcos::Detector& detector,
                    const json& tolerance, const std::string& name, Result& result) {
  const double eps = tolerance.at("score_eps"), sure = tolerance.at("sure"), same_iou = tolerance.at("same_iou");
  const double same_px = tolerance.at("same_px");
  const auto unexplained = [&](const fcos::Detection& item, const Detections& other, const char* side) {
    const bool full = static_cast<std::int64_t>(other.size()) >= detector.max_detections;
    const bool excused = std::abs(item.score - detector.score_threshold) <= eps ||
                         (full && item.score <= other.back().score + eps);
    result.excused += excused;
    if (excused || item.score < sure) return false;
    result.notes.push_back(name + ": only " + side + " finds " + words(detector.classes[item.label], item));
    return true;
  };
  std::vector<bool> taken(found.size());
  std::size_t only_expected = 0, only_found = 0;
  for (const auto& item : expected) {
    std::size_t best = found.size();
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double px = distance(item.box, found[i].box);
      const bool same = px < same_px || overlap(item.box, found[i].box) >= same_iou;
      if (same && !taken[i] && found[i].label == item.label)
        if (best == found.size() || px < distance(item.box, found[best].box)) best = i;
    }
    if (best == found.size()) {
      only_expected += unexplained(item, found, "the reference");
      continue;
    }
    taken[best] = true;
    ++result.matched;
    result.sure += item.score >= sure;
    result.px.push_back(distance(item.box, found[best].box));
    result.scores.push_back(std::abs(item.score - found[best].score));
    const auto beyond = [&](const char* key, double value) {
      return !tolerance.at(key).is_null() && value > tolerance.at(key).get<double>();
    };
    if (beyond("max_px", result.px.back()) || beyond("max_score", result.scores.back()))
      result.notes.push_back(name + ": " + words(detector.classes[item.label], found[best]) + ", the reference" +
                             words("", item));
  }
  for (std::size_t i = 0; i < found.size(); ++i)
    if (!taken[i]) only_found += unexplained(found[i], expected, "this program");
  result.missing += std::max(only_expected, only_found);
}

static bool row(const char* quantity, double measured, const json& allowed, const char* unit) {
  if (allowed.is_null()) return true;  // not judged at this precision
  std::printf("  %-24s  %10.1e%-3s  %8g%s\n", quantity, measured, unit, allowed.get<double>(), unit);
  return measured <= allowed.get<double>();
}

static bool print(Result& result, const json& tolerance) {
  const auto quantile = [](std::vector<double>& values, double share) {
    std::sort(values.begin(), values.end());
    return values.empty() ? 0.0 : values[static_cast<std::size_t>(share * (values.size() - 1))];
  };
  const double matched = tolerance.at("matched");
  const std::string count = std::to_string(result.matched) + " of " + std::to_string(result.matched + result.missing);
  std::printf("  %-24s  %-13s  allowed\n", "quantity", "measured");
  std::printf("  %-24s  %-13s  %7g%%\n", "matched", count.c_str(), 100 * matched);
  bool good = !result.crashed && result.missing <= std::ceil((1 - matched) * (result.sure + result.missing) - 1e-9);
  if (const double sure = tolerance.at("sure"); sure > 0 && result.sure == 0) {
    char text[100];
    std::snprintf(text, sizeof text, "no detection of %g or more on both sides: nothing to judge", sure);
    result.notes.push_back(text);
    good = false;
  }
  good &= row("largest box difference", quantile(result.px, 1), tolerance.at("max_px"), " px");
  good &= row("median box difference", quantile(result.px, 0.5), tolerance.at("median_px"), " px");
  good &= row("largest score difference", quantile(result.scores, 1), tolerance.at("max_score"), "");
  if (result.excused)
    std::printf("  %zu excused: at the score threshold, or at the end of a full list\n", result.excused);
  return good;
}

static std::vector<std::uint8_t> read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(file), {}};
  if (!file || bytes.empty()) throw std::runtime_error(path.string() + ": the file cannot be read");
  return bytes;
}

static int verify(const fs::path& model, const fs::path& folder) {
  if (!fs::is_regular_file(model)) throw std::runtime_error(model.string() + ": there is no such file");
  fcos::Detector detector(model);
  const json index = json::parse(read(folder / "vectors.json"));
  if (index.at("classes").size() != detector.classes.size())
    throw std::runtime_error((folder / "vectors.json").string() + ": it is of another model, with other classes");
  Result result;
  for (const json& vector : index.at("vectors")) {
    Detections expected;
    for (std::size_t i = 0; i < vector.at("boxes").size(); ++i)
      expected.push_back({vector["boxes"][i], vector.at("scores").at(i), vector.at("classes").at(i)});
    for (const auto& item : expected) detector.classes.at(item.label);
    const auto& [shape, inside] = std::pair(vector.at("shape"), vector.at("inside"));
    const auto bytes = read(folder / vector.at("file").get<std::string>());
    const fcos::Input input{shape.at(1), shape.at(2), inside.at(0), inside.at(1), bytes};
    const std::string name = vector.at("name");
    Detections found;
    try {
      found = detector.run(input);
    } catch (const std::invalid_argument&) {
      throw;  // a damaged file in FOLDER
    } catch (const std::exception& error) {
      result.crashed = true;
      result.notes.push_back(name + ": " + error.what());
    }
    compare(expected, found, detector, index.at("tolerance"), name, result);
  }
  if (print(result, index.at("tolerance"))) {
    std::printf("%s: the same as PyTorch on %zu images\n", model.string().c_str(), index.at("vectors").size());
    return 0;
  }
  for (std::size_t i = 0; i < std::min<std::size_t>(result.notes.size(), 8); ++i)
    std::fprintf(stderr, "failed: %s\n", result.notes[i].c_str());
  std::fprintf(stderr, "error: %s: this program gives different results from PyTorch\n", model.string().c_str());
  return 5;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: fcos_verify MODEL.onnx FOLDER\n");
    return 2;
  }
  try {
    return verify(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 4;
  }
}
