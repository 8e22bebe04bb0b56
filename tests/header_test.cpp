// The public header from C++: it compiles, and its functions link by their C names.
#include "mobilevlm.h"

int main()
{
    mvlm_model *model = nullptr;
    mvlm_error error{};
    const mvlm_model_options options{};
    const bool refused = mvlm_model_open("/nonexistent/model.bin", &options, &model, &error) == MVLM_BAD_MODEL;
    return refused && !model && error.status == MVLM_BAD_MODEL && *mvlm_status_text(error.status) ? 0 : 1;
}
