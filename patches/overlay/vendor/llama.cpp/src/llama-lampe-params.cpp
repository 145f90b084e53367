#include "llama-lampe-impl.h"
#include "llama-lampe-fields.h"

#include "llama-impl.h"

#include "ggml-lampe.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>

//
// check
//

static void check_u32(const char * name, uint32_t value, int64_t min, int64_t max, bool zero) {
    if ((value < min || value > max) && !(zero && value == 0)) {
        throw llama_lampe_error(format("LaMPE %s is %u: it must be between %" PRId64 " and %" PRId64, name, value, min, max));
    }
}

static void check_f64(const char * name, double value, double min, double max) {
    // written so that NaN fails
    if (!(value >= min && value <= max)) {
        throw llama_lampe_error(format("LaMPE %s is %g: it must be a number between %g and %g", name, value, min, max));
    }
}

void llama_lampe_params_check(const llama_lampe_params & params) {
    if (params.version != LLAMA_LAMPE_VERSION) {
        throw llama_lampe_error(format("LaMPE version is %u: this build reads version %d", params.version, LLAMA_LAMPE_VERSION));
    }

#define CHECK_U32( name, required, ...) check_u32(#name, params.name, __VA_ARGS__);
#define CHECK_F64( name, required, ...) check_f64(#name, params.name, __VA_ARGS__);
#define CHECK_NAME(name, required, ...) check_u32(#name, params.name, 0, std::vector<const char *>{ __VA_ARGS__ }.size() - 1, false);
#define CHECK_TEXT(...)

    LLAMA_LAMPE_FIELDS(params, CHECK_U32, CHECK_F64, CHECK_NAME, CHECK_TEXT)
}

//
// plan
//

static int32_t lampe_mapping_length(const llama_lampe_params & params, int32_t length) {
    const int32_t m_min = params.local_window + params.tail_window + 1;
    const int32_t m_max = (int32_t) std::floor(params.max_mapping_length);

    if ((uint32_t) length < params.short_length) {
        return std::max((int32_t) params.short_mapping_length, m_min);
    }

    const double m = std::floor(params.max_mapping_length/(1.0 + std::exp(-(params.slope*length + params.offset))));

    // the order of the comparisons sends NaN (0*inf is not possible, inf/inf is) to the lower bound
    return m >= m_max ? m_max : m >= m_min ? (int32_t) m : m_min;
}

llama_lampe_plan llama_lampe_plan_identity(int32_t length) {
    return {
        /*.length         =*/ length,
        /*.local_window   =*/ LLAMA_LAMPE_NO_LIMIT,
        /*.num            =*/ 1,
        /*.den            =*/ 1,
        /*.middle_shift   =*/ 0,
        /*.tail_start     =*/ LLAMA_LAMPE_NO_LIMIT,
        /*.tail_shift     =*/ 0,
        /*.mapping_length =*/ length,
    };
}

llama_lampe_plan llama_lampe_params_plan(const llama_lampe_params & params, int32_t length) {
    llama_lampe_plan plan = llama_lampe_plan_identity(length);

    const int32_t s1 = params.local_window;
    const int32_t s2 = params.tail_window;

    // one group of the neighbours' middle; their tail is empty
    int32_t group = 1;

    switch ((enum llama_lampe_method) params.method) {
        case LLAMA_LAMPE_METHOD_LAMPE:
            {
                const int32_t m = lampe_mapping_length(params, length);

                if (m >= length || length <= s1 + s2 + 1) {
                    return plan;
                }

                plan.local_window   = s1;
                plan.num            = m      - s1 - s2;
                plan.den            = length - s1 - s2;
                plan.middle_shift   = s1 - (int32_t) ggml_lampe_middle(s1, plan.num, plan.den);
                plan.tail_start     = length - s2;
                plan.tail_shift     = length - m;
                plan.mapping_length = m;

                return plan;
            }
        case LLAMA_LAMPE_METHOD_ROPE:
            {
                return plan;
            }
        case LLAMA_LAMPE_METHOD_REROPE:
            {
                plan.num          = 0;
                plan.middle_shift = s1;

                plan.mapping_length = std::min(length, s1 + 1);
            } break;
        case LLAMA_LAMPE_METHOD_SELFEXTEND:
            {
                group = params.group_size;

                plan.middle_shift   = s1 - s1/group;
                plan.mapping_length = std::min(length, (length - 1)/group + plan.middle_shift + 1);
            } break;
        case LLAMA_LAMPE_METHOD_JETLONG:
            {
                group = std::max<int32_t>(1, (length + (int32_t) params.window - 1)/(int32_t) params.window);

                if (group == 1) {
                    return plan;
                }

                plan.mapping_length = std::min(length, std::max(s1, (length - 1)/group) + 1);
            } break;
    }

    plan.local_window = s1;
    plan.den          = group;

    return plan;
}
