// The kernels behind Int8LinearPlan; see int8_linear.h for the idea.
#include "int8_linear.h"

#include "int8_outputs.h"
#include "rows_out.h"

namespace lc {
namespace LC_ISA {

void int8_weights(const Int8Layer& layer, const void* weight, bool bits16, int64_t block,
                  int8_t* out, int32_t* begin, float* steps, float* scratch) {
  int8_t* row = reinterpret_cast<int8_t*>(scratch);
  for (int64_t c = 0; c < kOutputs; ++c) {
    const int64_t output = block * kOutputs + c;
    memset(row, 0, static_cast<size_t>(layer.row_bytes()));
    if (output < layer.outputs) {
      const char* given =
          static_cast<const char*>(weight) + output * layer.inputs * (bits16 ? 2 : 4);
      const Step step = step_of_row(given, bits16, layer.inputs);
      for (int64_t i = 0; i < layer.inputs; i += kLanes)
        store_whole(row + i, mul(load_row(given, bits16, i, layer.inputs), splat(step.per_one)));
      steps[c] = step.worth;
    }
    int32_t sum = 0;
    for (int64_t i = 0; i < layer.quads() * 4; ++i) {
      out[(i / 4 * kOutputs + c) * 4 + i % 4] = row[i];
      sum += row[i];
    }
    begin[c] = -kUp * sum;
  }
}

void int8_rows(const Int8Job& job, int64_t first, int64_t rows, float* scratch) {
  float worth[kInt8Rows];
  const int64_t element = job.bits16 ? 2 : 4;
  int64_t given_bytes = job.layers[0].inputs * element;
  const char* given = static_cast<const char*>(job.x) + first * given_bytes;
  uint8_t* x = reinterpret_cast<uint8_t*>(scratch);
  float* between = scratch + kInt8Rows * job.widest_row_bytes() / 4;
  for (int64_t i = 0; i < job.count; ++i) {
    const Int8Layer& layer = job.layers[i];
    for (int64_t r = 0; r < rows; ++r) {
      const char* row = given + r * given_bytes;
      const Step step = step_of_row(row, job.bits16, layer.inputs);
      round_row(row, job.bits16, layer.inputs, step, x + r * layer.row_bytes());
      worth[r] = step.worth;
    }
    const int64_t outputs = layer.outputs;
    if (i + 1 == job.count)
      return run_layer(layer, job.dots, x, worth, rows, [&](int64_t r, int64_t output, Vec values) {
        write_row(job.out, job.bits16, (first + r) * outputs + output, values,
                  lanes_left(outputs, output));
      });
    run_layer(layer, job.dots, x, worth, rows, [&](int64_t r, int64_t output, Vec values) {
      write_row(between, job.bits16, r * outputs + output, values, lanes_left(outputs, output));
    });
    given = reinterpret_cast<const char*>(between);
    given_bytes = outputs * element;
  }
}

}  // namespace LC_ISA
}  // namespace lc
