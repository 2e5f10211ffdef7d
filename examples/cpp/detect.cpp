// fcos_detect MODEL.onnx PHOTO.ppm: print the objects in a photo, as `fcos predict` finds them.
//
// A PPM is a header and raw RGB, so this needs no image library. Use yours to open what your program gets.
#include <cstdio>
#include <fstream>

#include "fcos.hpp"

static fcos::Image read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  fcos::Image image;
  std::string magic;
  int largest = 0;
  file >> magic >> image.width >> image.height >> largest;
  if (!file || magic != "P6" || largest != 255 || image.width < 1 || image.height < 1 || image.width > 32768 ||
      image.height > 32768)
    throw std::runtime_error(path + ": not a readable PPM file with 8 bits per channel and no comments");
  file.get();  // one white space before the pixels
  image.rgb.resize(std::size_t{3} * image.width * image.height);
  if (!file.read(reinterpret_cast<char*>(image.rgb.data()), static_cast<std::streamsize>(image.rgb.size())))
    throw std::runtime_error(path + ": the file is truncated");
  return image;
}

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: fcos_detect MODEL.onnx PHOTO.ppm\n");
    return 2;
  }
  try {
    const fcos::Image image = read_ppm(argv[2]);
    fcos::Detector detector(argv[1]);
    for (const auto& [box, score, label] : detector.detect(image))
      std::printf("%s %.2f [%.1f, %.1f, %.1f, %.1f]\n", detector.classes[label].c_str(), score, box[0], box[1], box[2],
                  box[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
